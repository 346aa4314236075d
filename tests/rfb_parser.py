"""Parses what a VNC client sends, as libvncserver does: a second implementation for the tests.

Written apart from `worker.stream.rfb` on purpose, and in another way: a reader of one finished
stream that pulls fields off it in the order in which RFC 6143 §7.1 to §7.5 prints them. It parses
every message that libvncserver 0.9.14 acts upon, so one that slipped through is called by its name.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Unreadable(Exception):
    """The stream ends within a message, or has one that libvncserver does not support."""


@dataclass(frozen=True)
class Read:
    """One message, by its name and the fields that the tests look at."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)


class ServerSide:
    """Reads all that a client sent after its ProtocolVersion."""

    def __init__(self, stream: bytes) -> None:
        self._stream = io.BytesIO(stream)

    def session(self) -> list[Read]:
        """Return the handshake's two messages, as far as they are there, and all that follow."""
        steps = [self._security_type, self._client_init]
        messages = []
        while self._more():
            messages.append(steps.pop(0)() if steps else self._normal())
        return messages

    def _more(self) -> bool:
        at = self._stream.tell()
        more = self._stream.read(1) != b""
        self._stream.seek(at)
        return more

    def _raw(self, length: int) -> bytes:
        data = self._stream.read(length)
        if len(data) != length:
            raise Unreadable("stream ends within a message")
        return data

    def _u(self, length: int) -> int:
        return int.from_bytes(self._raw(length), "big")

    def _s32(self) -> int:
        return int.from_bytes(self._raw(4), "big", signed=True)

    def _security_type(self) -> Read:
        return Read("SecurityType", {"type": self._u(1)})

    def _client_init(self) -> Read:
        return Read("ClientInit", {"shared": self._u(1)})

    def _normal(self) -> Read:
        kind = self._u(1)
        readers: dict[int, Callable[[], Read]] = {
            0: self._set_pixel_format,
            2: self._set_encodings,
            3: self._update_request,
            4: self._key,
            5: self._pointer,
            6: self._cut_text,
            7: lambda: self._opaque("FileTransfer", 11),
            8: lambda: self._opaque("SetScale", 3),
            10: lambda: self._opaque("SetSW", 5),
            11: lambda: self._opaque("TextChat", 7),
            15: lambda: self._opaque("PalmVNCSetScaleFactor", 3),
            21: lambda: self._opaque("SetServerInput", 3),
            250: lambda: self._opaque("xvp", 3),
            251: lambda: self._opaque("SetDesktopSize", 7),
        }
        if kind not in readers:
            raise Unreadable(f"libvncserver closes the connection at type {kind}")
        return readers[kind]()

    def _opaque(self, name: str, length: int) -> Read:
        self._raw(length)
        return Read(name)

    def _set_pixel_format(self) -> Read:
        self._raw(3)
        bits, depth, _, true_colour = (self._u(1) for _ in range(4))
        maxima = [self._u(2) for _ in range(3)]
        shifts = [self._u(1) for _ in range(3)]
        self._raw(3)
        return Read(
            "SetPixelFormat",
            {
                "bits": bits,
                "depth": depth,
                "true_colour": true_colour != 0,
                "maxima": maxima,
                "shifts": shifts,
            },
        )

    def _set_encodings(self) -> Read:
        self._raw(1)
        return Read("SetEncodings", {"encodings": [self._s32() for _ in range(self._u(2))]})

    def _update_request(self) -> Read:
        incremental = self._u(1)
        rect = tuple(self._u(2) for _ in range(4))
        return Read("FramebufferUpdateRequest", {"incremental": incremental != 0, "rect": rect})

    def _key(self) -> Read:
        down = self._u(1) != 0
        self._raw(2)
        return Read("KeyEvent", {"down": down, "keysym": self._u(4)})

    def _pointer(self) -> Read:
        return Read("PointerEvent", {"buttons": self._u(1), "x": self._u(2), "y": self._u(2)})

    def _cut_text(self) -> Read:
        self._raw(3)
        length = self._u(4)
        if length > 1024 * 1024:
            raise Unreadable("libvncserver closes the connection at a cut text this long")
        return Read("ClientCutText", {"text": self._raw(length)})
