"""A small VNC server on a Unix socket that checks every message the stream server passes on."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Final, Self

from rfb_parser import ServerSide, Unreadable

from worker.display.screen import HEIGHT_PX, WIDTH_PX

if TYPE_CHECKING:
    from pathlib import Path

INPUT: Final = {"KeyEvent", "PointerEvent", "ClientCutText"}
HARMLESS: Final = {
    "SecurityType",
    "ClientInit",
    "SetPixelFormat",
    "SetEncodings",
    "FramebufferUpdateRequest",
}
_VERSION: Final = b"RFB 003.008\n"
_PIXEL_FORMAT: Final = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_UPDATE: Final = struct.pack(">BxHHHHHi", 0, 1, 0, 0, 16, 16, 0) + bytes(16 * 16 * 4)
_RECEIVE_BYTES: Final = 65536


class FakeDisplay:
    """Serves until closed; `findings` lists messages that should have been filtered out."""

    def __init__(self, path: Path, allowed: set[str]) -> None:
        """Listen.

        Args:
            path: the socket's.
            allowed: the names of the messages that may arrive.
        """
        self.findings: list[str] = []
        self._allowed = allowed
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        received = bytearray()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(120)
            connection.sendall(_VERSION)
            answered = 0
            while data := connection.recv(_RECEIVE_BYTES):
                received += data
                if len(received) < len(_VERSION):
                    continue
                answered = self._answer(connection, bytes(received[len(_VERSION) :]), answered)

    def _check_area(self, x: int, y: int, width: int, height: int) -> None:
        inside = x + width <= WIDTH_PX and y + height <= HEIGHT_PX
        if not (width and height and inside):
            self.findings.append(f"an update was requested for {width}x{height}+{x}+{y}")

    def _answer(self, connection: socket.socket, stream: bytes, answered: int) -> int:
        """Answer the messages that were not answered yet; return how many were, in total."""
        try:
            messages = ServerSide(stream).session()
        except Unreadable as error:
            # The stream server sends complete messages, but a receive may end within one.
            if "within a message" not in str(error):
                self.findings.append(f"x11vnc would have received an invalid message: {error}")
            return answered
        if answered == 0:
            connection.sendall(b"\x01\x01")
            answered = 1
        for message in messages[answered - 1 :]:
            if message.name not in self._allowed:
                self.findings.append(f"{message.name} was not filtered out")
            if message.name == "FramebufferUpdateRequest":
                self._check_area(*message.fields["rect"])
            if message.name == "SecurityType":
                connection.sendall(bytes(4))
            elif message.name == "ClientInit":
                size = struct.pack(">HH", 64, 32)
                connection.sendall(size + _PIXEL_FORMAT + struct.pack(">I", 4) + b"fuzz")
            elif message.name == "FramebufferUpdateRequest":
                connection.sendall(_UPDATE)
        return 1 + len(messages)
