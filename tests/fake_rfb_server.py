"""A scripted RFB-over-WebSocket server in a thread, so that the tests' own viewer can be tested."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

BINARY, CLOSE, PING, PONG = 0x2, 0x8, 0x9, 0xA
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PIXEL_FORMAT = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)


def frame(payload: bytes, *, opcode: int = BINARY, fin: bool = True) -> bytes:
    """One unmasked frame."""
    size = len(payload)
    if size < 126:
        return struct.pack(">BB", fin << 7 | opcode, size) + payload
    if size < 1 << 16:
        return struct.pack(">BBH", fin << 7 | opcode, 126, size) + payload
    return struct.pack(">BBQ", fin << 7 | opcode, 127, size) + payload


def close_frame(code: int, reason: str) -> bytes:
    """A Close frame."""
    return frame(struct.pack(">H", code) + reason.encode(), opcode=CLOSE)


def rect(*numbers: int, data: bytes = b"") -> bytes:
    """One rectangle of an update: x, y, width, height, encoding."""
    return struct.pack(">HHHHi", *numbers) + data


def update(*rects: bytes, count: int | None = None) -> bytes:
    """A FramebufferUpdate."""
    return struct.pack(">BxH", 0, len(rects) if count is None else count) + b"".join(rects)


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")
        self.request: list[bytes] = []

    def read_request(self) -> None:
        """Read an HTTP request's head."""
        while (line := self.file.readline().strip()) or not self.request:
            self.request.append(line)

    def upgrade(self, *, accept: bytes | None = None, then: bytes = b"") -> None:
        """Answer the request with 101, and more in the same packet."""
        self.read_request()
        fields = dict(line.split(b": ", 1) for line in self.request[1:])
        digest = hashlib.sha1(fields[b"Sec-WebSocket-Key"] + GUID).digest()  # noqa: S324
        self.sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Protocol: binary\r\nSec-WebSocket-Accept: "
            + (accept or base64.b64encode(digest))
            + b"\r\n\r\n"
            + then
        )

    def handshake(self, width: int = 8, height: int = 4, name: bytes = b"fake") -> None:
        """Upgrade and go through RFB's handshake; reads the viewer's two opening messages too."""
        self.upgrade(then=frame(b"RFB 003.008\n"))
        assert self.read_message() == b"RFB 003.008\n"
        self.send(b"\1\1")
        assert self.read_message() == b"\1"
        self.send(bytes(4))
        assert self.read_message() == b"\1"
        size = struct.pack(">HH", width, height)
        self.send(size + PIXEL_FORMAT + struct.pack(">I", len(name)) + name)
        assert self.read_message()[0] == 0
        assert self.read_message()[0] == 2

    def send(self, payload: bytes) -> None:
        """Send one message."""
        self.sock.sendall(frame(payload))

    def read_frame(self) -> tuple[int, bytes]:
        """(opcode, payload) of the viewer's next frame; EOFError at its end of TCP."""
        head = self._read(2)
        assert head[1] & 0x80, "a client's frame is masked"
        size = head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
        mask, data = self._read(4), self._read(size)
        return head[0] & 0xF, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    def read_message(self) -> bytes:
        """The viewer's next binary message."""
        opcode, payload = self.read_frame()
        assert opcode == BINARY, opcode
        return payload

    def read_until_close(self) -> bytes:
        """Read until the viewer's Close; return its payload."""
        while True:
            opcode, payload = self.read_frame()
            if opcode == CLOSE:
                return payload

    def serve(self, ending: threading.Event, reason: str) -> None:
        """Answer each request with a whole frame, until the end: Close 1000, cleanly."""
        width, height = 64, 32
        self.handshake(width, height)
        whole = update(rect(0, 0, width, height, 0, data=bytes(width * height * 4)))
        requests, lock = threading.Semaphore(0), threading.Lock()
        leaving = threading.Event()

        def write() -> None:
            while not ending.is_set() and not leaving.is_set():
                if requests.acquire(timeout=0.005):
                    with lock:
                        self.send(whole)
            with lock:
                self.sock.sendall(close_frame(1000, reason if ending.is_set() else ""))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while True:
                opcode, payload = self.read_frame()
                if opcode == CLOSE:
                    break
                if payload[:1] == b"\3":
                    requests.release()
        finally:
            leaving.set()
            writer.join()

    def _read(self, size: int) -> bytes:
        data = self.file.read(size)
        if len(data) < size:
            raise EOFError
        return data


class FakeServer:
    """Listens on loopback and runs a script for each viewer; its exit raises their errors."""

    def __init__(self, script: Callable[[Peer], object]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(0.02)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.errors: list[Exception] = []
        self.port: int = self._listener.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/tasks/1/websockify?token=t"

    def __enter__(self) -> Self:
        """Start to accept."""
        self._start(self._accept)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Stop accepting, wait for the scripts, and raise the first error that one had."""
        self._stopping.set()
        deadline = time.monotonic() + 10
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
        self._listener.close()
        if self.errors and kind is None:
            raise self.errors[0]

    def _start(self, target: Callable[..., object], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            sock.settimeout(10)
            self._start(self._run, sock)

    def _run(self, sock: socket.socket) -> None:
        peer = Peer(sock)
        try:
            self._script(peer)
        except Exception as error:
            self.errors.append(error)
        finally:
            peer.file.close()
            sock.close()
