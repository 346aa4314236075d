"""Mutates fuzz cases: single bytes, HTTP fragments, WebSocket frames and RFB messages."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from fuzzing.case import Case

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

DATA_MAX_BYTES: Final = 64 * 1024
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH_16, _LENGTH_64 = 126, 127
_MASKED: Final = 0x80


def frame(payload: bytes, *, first: int = 0x82, length: int | None = None) -> bytes:
    """Encode a masked WebSocket frame; the mask is 0, so that its payload is readable in a file.

    Args:
        payload: its data.
        first: its first byte: FIN, RSV and opcode.
        length: the length to claim, if other than the payload's.
    """
    size = len(payload) if length is None else length
    if size < _LENGTH_16:
        head = struct.pack(">BB", first, _MASKED | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, _MASKED | _LENGTH_16, size)
    else:
        head = struct.pack(">BBQ", first, _MASKED | _LENGTH_64, size)
    return head + bytes(4) + payload


_RFB: Final = (
    b"RFB 003.008\n",
    b"RFB 003.003\n",
    b"\x01",
    b"\x01\x01",
    struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0),
    struct.pack(">BxxxBBBBHHHBBBxxx", 0, 16, 24, 0, 1, 31, 63, 31, 11, 5, 0),
    struct.pack(">BxH3i", 2, 3, 7, 16, -239),
    struct.pack(">BxH", 2, 65535),
    struct.pack(">BBHHHH", 3, 0, 0, 0, 1920, 1080),
    struct.pack(">BBHHHH", 3, 1, 65535, 65535, 65535, 65535),
    struct.pack(">BBxxI", 4, 1, 0xFF0D),
    struct.pack(">BBHH", 5, 255, 10, 10),
    struct.pack(">Bxxxi", 6, 5) + b"hello",
    struct.pack(">Bxxxi", 6, -8) + b"\x10\x00\x00\x01" + b"abcd",
    struct.pack(">Bxxxi", 6, 0x7FFFFFFF),
    struct.pack(">BBHHHH", 150, 1, 0, 0, 100, 100),
    struct.pack(">BxxxIB", 248, 1, 3) + b"abc",
    struct.pack(">BxBB", 250, 1, 2),
    struct.pack(">BxHHBx", 251, 800, 600, 1) + bytes(16),
    struct.pack(">BBHII", 255, 0, 1, 97, 30),
    struct.pack(">BBH", 255, 1, 2) + bytes(6),
    bytes([7]) + bytes(11),
)
_FRAMES: Final = (
    *(frame(message) for message in _RFB),
    frame(b"", first=0x89),
    frame(b"p" * 125, first=0x89),
    frame(b"p" * 126, first=0x89),
    frame(b"", first=0x09),
    frame(b"x", first=0x8A),
    frame(b"", first=0x88),
    frame(struct.pack(">H", 1000) + b"bye", first=0x88),
    frame(struct.pack(">H", 0), first=0x88),
    frame(struct.pack(">H", 4999) + b"\x1b[31m\r\n\xc2\x9b", first=0x88),
    frame(b"\x03\xe8\xff\xff", first=0x88),
    frame(b"\x03", first=0x88),
    frame(b"c" * 4000, first=0x88),
    frame(b"", first=0x02),
    frame(b"RF", first=0x02),
    frame(b"B 003", first=0x00),
    frame(b".008\n", first=0x80),
    frame(b"text", first=0x81),
    frame(b"?", first=0xF3),
    frame(b"", length=1 << 63),
    frame(b"", length=(1 << 64) - 1),
    frame(b"z" * 50, length=1 << 20),
    b"\x82\x05hello",  # not masked
)
_HTTP: Final = (
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"http://[",
    b"//",
    b"/../",
    b"%00",
    b"?role=control",
    b"&a=1" * 20,
    b"?token=@VIEW@",
    b"?token=@CONTROL@",
    b"&token=@VIEW@",
    b"/healthz",
    b"/readyz",
    b"/metrics",
    b"/debug/state",
    b"/debug/stream-url",
    b"/novnc/core/rfb.js",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b" HTTP/9.9",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"Host: [\r\n",
    b"Host: localhost\r\n",
    b"Content-Length: 100\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: keep-alive, upgrade\r\n",
    b"Upgrade: websocket\r\n",
    b"Sec-WebSocket-Version: 13\r\n",
    b"Sec-WebSocket-Key: \xff\xfe\r\n",
    b"Sec-WebSocket-Protocol: binary, base64\r\n",
    b"X-Forwarded-For: \x1b[31m, 1.2.3.4\r\n",
    b"Origin: http://evil.example\r\n",
    b" folded: line\r\n",
    b"A: b\r\n" * 120,
    b"A: " + b"b" * 8192 + b"\r\n",
)


def mutated(case: Case, others: Sequence[Case], rng: random.Random) -> Case:
    """Derive a case from this one by some random changes."""
    data = bytearray(case.data)
    for _ in range(1 + int(rng.expovariate(0.5))):
        rng.choice(_MUTATORS)(data, others, rng)
    return Case(data=bytes(data[:DATA_MAX_BYTES]), delivery=rng.getrandbits(32))


def _flip(data: bytearray, _others: Sequence[Case], rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(data: bytearray, _others: Sequence[Case], rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 10, 13, 127, 128, 255))


def _cut(data: bytearray, _others: Sequence[Case], rng: random.Random) -> None:
    start = rng.randint(0, len(data))
    del data[start : start + 1 + int(rng.expovariate(0.05))]


def _repeat(data: bytearray, _others: Sequence[Case], rng: random.Random) -> None:
    start = rng.randint(0, len(data))
    piece = data[start : start + 1 + int(rng.expovariate(0.05))]
    data[start:start] = piece * rng.choice((1, 2, 10, 100))


def _truncate(data: bytearray, _others: Sequence[Case], rng: random.Random) -> None:
    del data[rng.randint(0, len(data)) :]


def _insert_http(data: bytearray, _others: Sequence[Case], rng: random.Random) -> None:
    head = data.find(_HEAD_END)
    lines = [match.start() for match in re.finditer(rb"[ \n?]", data[: max(head, 0)])]
    at = 1 + rng.choice(lines) if lines else 0
    data[at:at] = rng.choice(_HTTP)


def _append_frames(data: bytearray, _others: Sequence[Case], rng: random.Random) -> None:
    for _ in range(1 + int(rng.expovariate(0.3))):
        data += rng.choice(_FRAMES) * rng.choice((1, 1, 1, 1, 50))


def _insert_frame(data: bytearray, _others: Sequence[Case], rng: random.Random) -> None:
    starts = frame_starts(data)
    at = rng.choice(starts) if starts else len(data)
    data[at:at] = rng.choice(_FRAMES)


def _drop_frame(data: bytearray, _others: Sequence[Case], rng: random.Random) -> None:
    starts = frame_starts(data)
    if len(starts) > 1:
        index = rng.randrange(len(starts) - 1)
        del data[starts[index] : starts[index + 1]]


def _splice(data: bytearray, others: Sequence[Case], rng: random.Random) -> None:
    other = rng.choice(others).data
    data[rng.randint(0, len(data)) :] = other[rng.randint(0, len(other)) :]


def _graft(data: bytearray, others: Sequence[Case], rng: random.Random) -> None:
    """Keep the HTTP head and take another case's frames."""
    head = data.find(_HEAD_END)
    other = rng.choice(others).data
    data[head + len(_HEAD_END) if head >= 0 else len(data) :] = other.partition(_HEAD_END)[2]


def frame_starts(data: bytes | bytearray) -> list[int]:
    """Where each WebSocket frame of a case starts, and where the last one ends."""
    at = data.find(_HEAD_END)
    if at < 0:
        return []
    at += len(_HEAD_END)
    starts = []
    while at + 2 <= len(data):
        starts.append(at)
        size = data[at + 1] & 0x7F
        extra = {_LENGTH_16: 2, _LENGTH_64: 8}.get(size, 0)
        if extra:
            size = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
        at += 2 + extra + (4 if data[at + 1] & _MASKED else 0) + size
    return [*starts, min(at, len(data))]


_MUTATORS: Final = (
    _flip,
    _set,
    _cut,
    _repeat,
    _truncate,
    _insert_http,
    _append_frames,
    _append_frames,
    _insert_frame,
    _insert_frame,
    _drop_frame,
    _splice,
    _graft,
)
