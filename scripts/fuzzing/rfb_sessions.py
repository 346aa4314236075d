"""Makes fuzz cases: valid sessions of a viewer with unusual RFB messages, of known structure."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from fuzzing.case import PLACEHOLDERS, Case
from fuzzing.mutations import frame

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

_HEAD: Final = (
    b"GET /tasks/fuzz/websockify?token=%s HTTP/1.1\r\n"
    b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: binary\r\n\r\n"
)
_HANDSHAKE: Final = (b"RFB 003.008\n", b"\x01", b"\x01")
_MESSAGES_MAX: Final = 40
_SPLIT_PART: Final = 0.1  # of the messages are split into two frames
_REPEATED_PART: Final = 0.1
_SHORT_TEXT_PART: Final = 0.9

_EDGES: Final = (
    *(0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 255, 256, 2047, 2048, 2049, 32767, 32768, 65534, 65535),
    *(1078, 1079, 1080, 1081, 1918, 1919, 1920, 1921),  # at the edges of the screen
)
_ENCODINGS: Final = (
    *(0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 21, 22, 50),
    *(-1, -223, -224, -232, -239, -240, -260, -261, -305, -307, -308, -309, -312, -313, -316),
    *(0x574D5664, -1063131698, -65536, -65535, -65526, -32768, -764, -763, -512, -412, -768),
    *range(-32, -22),
    *range(-256, -246),
)
_FORMATS: Final = (
    (32, 24, 0, 1, 255, 255, 255, 16, 8, 0),
    (32, 24, 1, 1, 255, 255, 255, 16, 8, 0),
    (32, 24, 0, 1, 255, 255, 255, 0, 8, 16),
    (32, 32, 1, 1, 255, 255, 255, 24, 16, 8),
    (32, 30, 0, 1, 1023, 1023, 1023, 20, 10, 0),
    (32, 3, 0, 1, 1, 1, 1, 31, 15, 0),
    (16, 16, 0, 1, 31, 63, 31, 11, 5, 0),
    (16, 16, 1, 1, 31, 63, 31, 11, 5, 0),
    (16, 15, 0, 1, 31, 31, 31, 10, 5, 0),
    (8, 8, 0, 1, 7, 7, 3, 0, 3, 6),
    (8, 8, 1, 1, 3, 7, 7, 0, 2, 5),
    (8, 3, 0, 1, 1, 1, 1, 2, 1, 0),
    (16, 3, 1, 1, 1, 1, 1, 15, 7, 0),
    (32, 24, 1, 1, 255, 255, 255, 24, 12, 0),
    (32, 16, 1, 1, 31, 63, 31, 11, 5, 0),
    (32, 8, 0, 1, 7, 7, 3, 0, 3, 6),
    (8, 8, 1, 0, 255, 255, 255, 16, 8, 0),
    (8, 8, 0, 0, 0, 0, 0, 0, 0, 0),
)
_KEYSYMS: Final = (
    *(0x61, 0x41, 0xE4, 0xFF0D, 0xFFE1, 0xFFE5, 0xFF7E, 0x01000151, 0x0101F600, 0x0110FFFF),
    *(0, 1, 0xFFFF, 0x10000, 0xFFFFFF, 0x1FFFFFFF, 0x20000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
)
_BUTTONS: Final = (0, *(1 << button for button in range(8)), 0x55, 0x7F, 0xFF)
_TEXTS: Final = (b"", b"text", b"\x00", b"\xff" * 300, "\u00e4\u4f60".encode(), b"a" * 70_000)


def generated(rng: random.Random) -> Case:
    """Make a case: mostly valid messages, so that they reach the VNC server's encoders."""
    messages = [b"".join(_message(rng) for _ in range(rng.randint(1, 4)))]
    for _ in range(rng.randint(1, _MESSAGES_MAX)):
        message = _message(rng)
        messages.append(message * (rng.randint(2, 50) if rng.random() < _REPEATED_PART else 1))
    placeholder = rng.choice((PLACEHOLDERS[0], PLACEHOLDERS[0], PLACEHOLDERS[1]))
    data = [_HEAD % placeholder, *(frame(step) for step in _HANDSHAKE)]
    for message in messages:
        cut = rng.randint(0, len(message)) if rng.random() < _SPLIT_PART else len(message)
        data += [frame(part) for part in (message[:cut], message[cut:]) if part]
    return Case(data=b"".join(data), delivery=rng.getrandbits(32))


def _message(rng: random.Random) -> bytes:
    (make,) = rng.choices(list(_MAKERS), list(_MAKERS.values()))
    return make(rng)


def _size(rng: random.Random) -> int:
    return rng.choice(_EDGES) if rng.random() < 0.5 else rng.randint(0, 2000)  # noqa: PLR2004


def _update_request(rng: random.Random) -> bytes:
    if rng.random() < 0.3:  # noqa: PLR2004 - the whole screen: every encoder has work
        return struct.pack(">BBHHHH", 3, rng.randint(0, 1), 0, 0, 1920, 1080)
    rect = [_size(rng), _size(rng), _size(rng), _size(rng)]
    if rng.random() < 0.3:  # noqa: PLR2004
        rect[rng.choice((2, 3))] = 0
    return struct.pack(">BBHHHH", 3, rng.choice((0, 1, 1, 255)), *rect)


def _set_pixel_format(rng: random.Random) -> bytes:
    fields = list(rng.choice(_FORMATS))
    if rng.random() < 0.2:  # noqa: PLR2004
        fields[rng.randrange(len(fields))] = rng.choice((0, 1, 7, 8, 16, 24, 31, 32, 127, 255))
    return struct.pack(">B3xBBBBHHHBBB3x", 0, *fields)


def _set_encodings(rng: random.Random) -> bytes:
    real = rng.choice((0, 1, 2, 5, 6, 7, 16))
    chosen = [real, *(rng.choice(_ENCODINGS) for _ in range(rng.choice((0, 1, 3, 8, 60, 511))))]
    if rng.random() < 0.5:  # noqa: PLR2004
        rng.shuffle(chosen)
    return struct.pack(f">BxH{len(chosen)}i", 2, len(chosen), *chosen)


def _key(rng: random.Random) -> bytes:
    return struct.pack(">BBxxI", 4, rng.choice((0, 1, 255)), rng.choice(_KEYSYMS))


def _pointer(rng: random.Random) -> bytes:
    return struct.pack(">BBHH", 5, rng.choice(_BUTTONS), _size(rng), _size(rng))


def _cut_text(rng: random.Random) -> bytes:
    text = rng.choice(_TEXTS)
    if rng.random() < _SHORT_TEXT_PART:
        text = text[:300]
    return struct.pack(">BxxxI", 6, len(text)) + text


def _extended_cut_text(rng: random.Random) -> bytes:
    payload = rng.randbytes(rng.choice((4, 5, 16, 300)))
    return struct.pack(">Bxxxi", 6, -len(payload)) + payload


def _extension(rng: random.Random) -> bytes:
    return rng.choice(
        (
            struct.pack(">BBHHHH", 150, 1, 0, 0, _size(rng), _size(rng)),
            struct.pack(">BxxxIB", 248, rng.getrandbits(32), 3) + b"abc",
            struct.pack(">BxBB", 250, 1, rng.randint(0, 5)),
            struct.pack(">BxHHBx", 251, _size(rng), _size(rng), 1) + bytes(16),
            struct.pack(">BBHII", 255, 0, rng.choice((0, 1, 256)), rng.choice(_KEYSYMS), 30),
            struct.pack(">BBH", 255, 1, rng.randint(0, 1)),
        )
    )


def _forbidden(rng: random.Random) -> bytes:
    """Return a message that ends the connection: it must not reach the VNC server."""
    text = rng.randbytes(16)
    return rng.choice(
        (
            struct.pack(">BBBBII", 7, rng.randint(0, 16), 0, 0, 16, 16) + text,  # file transfer
            struct.pack(">BBBB", 8, rng.choice((0, 1, 9)), 0, 0),  # scale
            struct.pack(">BBBB", 15, rng.choice((0, 1, 9)), 0, 0),  # scale, PalmVNC
            struct.pack(">BBBB", 9, 1, 0, 0),  # server input
            struct.pack(">BBHHH", 10, 1, 0, 0, 0),  # single window
            struct.pack(">BxxxI", 11, rng.choice((16, 0xFFFFFFFF, 0xFFFFFFFD))) + text,  # text chat
            struct.pack(">BxHI", 252, 0, 16) + text,  # file transfer, TightVNC
            struct.pack(">BxH", 2, rng.choice((513, 65535))) + text,  # too many encodings
            struct.pack(">Bxxxi", 6, rng.choice((1 << 20 | 1, 0x7FFFFFFF, -0x80000000, -1))) + text,
            bytes([rng.choice((1, 12, 13, 14, 20, 21, 130, 253, 254))]) + text,
        )
    )


_MAKERS: Final[dict[Callable[[random.Random], bytes], float]] = {
    _update_request: 12,
    _set_encodings: 5,
    _set_pixel_format: 4,
    _pointer: 3,
    _key: 2,
    _cut_text: 1,
    _extended_cut_text: 0.5,
    _extension: 1,
    _forbidden: 0.1,
}
