"""The messages from client to server: the length of each, the roles it passes for, its rewriting.

The protocol is RFC 6143 with the extensions that noVNC 1.3 to 1.7 and TigerVNC's viewer send, as
described by the community's specification (github.com/rfbproto/rfbproto).

Messages and encodings are allowed by name. A message passes only if its row in the table allows it
for the role; one that has a row and does not pass is skipped, because usual viewers send it. A
message without a row ends the connection: UltraVNC's file transfer, text chat, scaling, SetSW and
SetServerInput, which libvncserver would obey; FixColourMapEntries, which RFC 6143 §7.5 reserves;
gii (253), which none of these viewers sends.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from worker.rfb import encodings, pixel_format, update_requests
from worker.rfb.pixel_format import PixelFormat
from worker.rfb.viewer_input import KEY_EVENT, POINTER_EVENT

if TYPE_CHECKING:
    from collections.abc import Callable

# The proxy sends this to the VNC server as soon as it is connected: libvncserver otherwise waits
# 100 to 200 ms for a WebSocket handshake before it sends its own version. The viewer's is therefore
# dropped, and a viewer that answers 3.3 or 3.7 is refused: its handshake would differ from the one
# under way. noVNC, TigerVNC, vncdotool and asyncvnc all answer 3.8 to a server of 3.8.
PROTOCOL_VERSION: Final = b"RFB 003.008\n"

MAX_ENCODINGS: Final = 512
MAX_CUT_TEXT_BYTES: Final = 1 << 20  # libvncserver's own limit
MAX_FENCE_PAYLOAD_BYTES: Final = 64  # rfbproto, ClientFence

_SECURITY_NONE: Final = b"\x01"
_SHARED: Final = b"\x01"
_EXTENDED_CUT_TEXT_FLAGS_BYTES: Final = 4
_SCREEN_BYTES: Final = 16
_QEMU_EXTENDED_KEY: Final = 0
_QEMU_AUDIO: Final = 1
_QEMU_EXTENDED_KEY_BYTES: Final = 12
_QEMU_AUDIO_BYTES: Final = {0: 4, 1: 4, 2: 10}  # by operation: enable, disable, set format

_PIXEL_FORMAT_HEAD: Final = bytes(4)  # type SetPixelFormat, padding
_ENCODINGS_HEAD: Final = struct.Struct(">BxH")  # type, count
_CUT_TEXT_HEAD: Final = struct.Struct(">B3xi")  # type, length
_QEMU_HEAD: Final = struct.Struct(">xBH")  # submessage, operation
_QEMU_KEY_EVENT: Final = struct.Struct(">xxHI4x")  # down, keysym


FRAMEBUFFER_UPDATE: Final = 0  # the first byte of a message, server to client (§7.6.1)


class ProtocolViolation(Exception):
    """A viewer sent what RFB 3.8 does not allow; the text contains none of the viewer's bytes."""


class MessageType(IntEnum):
    """The first byte of a message, client to server (RFC 6143 §7.5 and rfbproto)."""

    SET_PIXEL_FORMAT = 0
    SET_ENCODINGS = 2
    FRAMEBUFFER_UPDATE_REQUEST = 3
    KEY_EVENT = 4
    POINTER_EVENT = 5
    CLIENT_CUT_TEXT = 6
    ENABLE_CONTINUOUS_UPDATES = 150
    CLIENT_FENCE = 248
    XVP = 250
    SET_DESKTOP_SIZE = 251
    QEMU = 255


class RateLimit(NamedTuple):
    """How many messages pass: `per_s` on average, up to `burst` at once."""

    per_s: float
    burst: float


# A viewer that sends more is read more slowly: its messages wait and keep their order.
ALL_MESSAGES: Final = RateLimit(per_s=5000, burst=10_000)  # also those that are skipped
SETTINGS_RATE: Final = RateLimit(per_s=10, burst=40)  # pixel formats, encodings
INPUT_RATE: Final = RateLimit(per_s=500, burst=500)  # keys and buttons
CUT_TEXT_RATE: Final = RateLimit(per_s=4, burst=8)


def _always(_head: bytes) -> bool:
    return True


def _never(_head: bytes) -> bool:
    return False


def _unchanged(raw: bytes) -> bytes:
    return raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One row of the table.

    Attributes:
        head_bytes: How many bytes determine the message's length; without `size`, its length.
        size: Returns the length of the complete message in bytes, given its head.
        view: Whether a message with this head passes for the role `view`.
        control: Whether it passes for the role `control`.
        rewrite: Returns what is sent to the VNC server in its place; may be empty.
        rate: The budget that a message which passes is charged to, in addition to `ALL_MESSAGES`.
    """

    head_bytes: int
    size: Callable[[bytes], int] = len
    view: Callable[[bytes], bool] = _never
    control: Callable[[bytes], bool] = _never
    rewrite: Callable[[bytes], bytes] = _unchanged
    rate: RateLimit | None = None


def _dropped_version(raw: bytes) -> bytes:
    """ProtocolVersion, RFC 6143 §7.1.1."""
    if raw != PROTOCOL_VERSION:
        raise ProtocolViolation("protocol version is not 3.8")
    return b""


def _security_none(raw: bytes) -> bytes:
    """Security type, RFC 6143 §7.1.2: x11vnc without a password offers only None."""
    if raw != _SECURITY_NONE:
        raise ProtocolViolation("security type is not None")
    return raw


def _shared(_raw: bytes) -> bytes:
    """ClientInit, RFC 6143 §7.3.1: an exclusive viewer would disconnect all others."""
    return _SHARED


def _possible_pixel_format(raw: bytes) -> bytes:
    """SetPixelFormat, RFC 6143 §7.5.1."""
    wanted = PixelFormat.unpack(raw[len(_PIXEL_FORMAT_HEAD) :])
    if not wanted.is_possible():
        raise ProtocolViolation("impossible pixel format")
    return _PIXEL_FORMAT_HEAD + wanted.pack()


def _encodings_size(head: bytes) -> int:
    """SetEncodings, RFC 6143 §7.5.2."""
    _, count = _ENCODINGS_HEAD.unpack(head)
    if count > MAX_ENCODINGS:
        raise ProtocolViolation("too many encodings")
    return len(head) + 4 * int(count)


def _served_encodings(raw: bytes) -> bytes:
    announced = struct.unpack_from(f">{len(raw) // 4 - 1}i", raw, _ENCODINGS_HEAD.size)
    kept = encodings.served(announced)
    head = _ENCODINGS_HEAD.pack(MessageType.SET_ENCODINGS, len(kept))
    return head + struct.pack(f">{len(kept)}i", *kept)


def _cut_text_size(head: bytes) -> int:
    """ClientCutText, RFC 6143 §7.5.6; a negative length marks rfbproto's extended clipboard."""
    _, length = _CUT_TEXT_HEAD.unpack(head)
    if abs(length) > MAX_CUT_TEXT_BYTES:
        raise ProtocolViolation("cut text too long")
    if -_EXTENDED_CUT_TEXT_FLAGS_BYTES < length < 0:
        raise ProtocolViolation("extended cut text without flags")
    return len(head) + abs(int(length))


def _is_plain_cut_text(head: bytes) -> bool:
    _, length = _CUT_TEXT_HEAD.unpack(head)
    return int(length) >= 0


def _utf8_cut_text(raw: bytes) -> bytes:
    """Convert Latin-1 to UTF-8; text that is valid UTF-8 already is unchanged.

    RFC 6143 specifies Latin-1. x11vnc passes the bytes on unchanged, and Chromium reads them as
    UTF-8. A text that is too long for libvncserver after the conversion does not pass.
    """
    text = raw[_CUT_TEXT_HEAD.size :]
    try:
        text.decode()
    except UnicodeDecodeError:
        text = text.decode("latin-1").encode()
        if len(text) > MAX_CUT_TEXT_BYTES:
            return b""
        return _CUT_TEXT_HEAD.pack(MessageType.CLIENT_CUT_TEXT, len(text)) + text
    return raw


def _fence_size(head: bytes) -> int:
    payload_bytes = head[-1]
    if payload_bytes > MAX_FENCE_PAYLOAD_BYTES:
        raise ProtocolViolation("fence payload too long")
    return len(head) + payload_bytes


def _desktop_size_size(head: bytes) -> int:
    screens = head[6]
    return len(head) + _SCREEN_BYTES * screens


def _qemu_size(head: bytes) -> int:
    submessage, operation = _QEMU_HEAD.unpack(head)
    if submessage == _QEMU_EXTENDED_KEY:
        return _QEMU_EXTENDED_KEY_BYTES
    if submessage == _QEMU_AUDIO and operation in _QEMU_AUDIO_BYTES:
        return _QEMU_AUDIO_BYTES[operation]
    raise ProtocolViolation("unknown QEMU message")


def _is_qemu_key(head: bytes) -> bool:
    return head[1] == _QEMU_EXTENDED_KEY


def _plain_key(raw: bytes) -> bytes:
    """Convert QEMU's extended key event to a KeyEvent, the only one that libvncserver supports.

    A key code without a keysym has no equivalent KeyEvent.
    """
    down, keysym = _QEMU_KEY_EVENT.unpack(raw)
    return KEY_EVENT.pack(MessageType.KEY_EVENT, int(down != 0), keysym) if keysym else b""


HANDSHAKE: Final = (
    Message(
        head_bytes=len(PROTOCOL_VERSION), view=_always, control=_always, rewrite=_dropped_version
    ),
    Message(head_bytes=1, view=_always, control=_always, rewrite=_security_none),
    Message(head_bytes=1, view=_always, control=_always, rewrite=_shared),
)

# A PointerEvent's highest bit is button 8 (RFC 6143 §7.5.5). It marks rfbproto's longer form, of 7
# bytes, only if viewer and server have agreed on it, which PASSED_ENCODINGS prevents.
MESSAGES: Final[dict[int, Message]] = {
    MessageType.SET_PIXEL_FORMAT: Message(
        head_bytes=len(_PIXEL_FORMAT_HEAD) + pixel_format.SIZE_BYTES,
        view=_always,
        control=_always,
        rewrite=_possible_pixel_format,
        rate=SETTINGS_RATE,
    ),
    MessageType.SET_ENCODINGS: Message(
        head_bytes=_ENCODINGS_HEAD.size,
        size=_encodings_size,
        view=_always,
        control=_always,
        rewrite=_served_encodings,
        rate=SETTINGS_RATE,
    ),
    MessageType.FRAMEBUFFER_UPDATE_REQUEST: Message(
        head_bytes=update_requests.MESSAGE.size, view=_always, control=_always
    ),
    MessageType.KEY_EVENT: Message(head_bytes=KEY_EVENT.size, control=_always, rate=INPUT_RATE),
    MessageType.POINTER_EVENT: Message(
        head_bytes=POINTER_EVENT.size, control=_always, rate=INPUT_RATE
    ),
    MessageType.CLIENT_CUT_TEXT: Message(
        head_bytes=_CUT_TEXT_HEAD.size,
        size=_cut_text_size,
        control=_is_plain_cut_text,
        rewrite=_utf8_cut_text,
        rate=CUT_TEXT_RATE,
    ),
    MessageType.ENABLE_CONTINUOUS_UPDATES: Message(head_bytes=10),
    MessageType.CLIENT_FENCE: Message(head_bytes=9, size=_fence_size),
    MessageType.XVP: Message(head_bytes=4),
    MessageType.SET_DESKTOP_SIZE: Message(head_bytes=8, size=_desktop_size_size),
    MessageType.QEMU: Message(
        head_bytes=_QEMU_HEAD.size,
        size=_qemu_size,
        control=_is_qemu_key,
        rewrite=_plain_key,
        rate=INPUT_RATE,
    ),
}
