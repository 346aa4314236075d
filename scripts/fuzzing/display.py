"""A small VNC server on a Unix socket, which looks closely at what the stream server lets pass."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Final, Self

from rfb_parser import ServerSide, Unreadable

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


class Display:
    """Serves until closed; `findings` says what should never have come through."""

    def __init__(self, path: Path, allowed: set[str]) -> None:
        """Listen.

        Args:
            path: the socket's.
            allowed: the messages that may arrive.
        """
        self.findings: list[str] = []
        self._allowed = allowed
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        heard = bytearray()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(120)
            connection.sendall(_VERSION)
            said = 0
            while data := connection.recv(_RECEIVE_BYTES):
                heard += data
                if len(heard) < len(_VERSION):
                    continue
                said = self._answer(connection, bytes(heard[len(_VERSION) :]), said)

    def _answer(self, connection: socket.socket, stream: bytes, said: int) -> int:
        """Answer the messages that were not answered yet; only whole ones ever arrive."""
        try:
            messages = ServerSide(stream).session()
        except Unreadable as error:
            # A socket's buffer may cut what was sent in one piece.
            if "within a message" not in str(error):
                self.findings.append(f"x11vnc would have heard nonsense: {error}")
            return said
        if said == 0:
            connection.sendall(b"\x01\x01")
            said = 1
        for message in messages[said - 1 :]:
            if message.name not in self._allowed:
                self.findings.append(f"{message.name} came through")
            if message.name == "SecurityType":
                connection.sendall(bytes(4))
            elif message.name == "ClientInit":
                size = struct.pack(">HH", 64, 32)
                connection.sendall(size + _PIXEL_FORMAT + struct.pack(">I", 4) + b"fuzz")
            elif message.name == "FramebufferUpdateRequest":
                connection.sendall(_UPDATE)
        return 1 + len(messages)
