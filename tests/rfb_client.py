"""A raw RFB 3.8 (RFC 6143) viewer over WebSocket, for tests of the stream: `Viewer`."""

from __future__ import annotations

import contextlib
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from websocket_client import (
    Closed,
    Ended,
    Lost,
    ProtocolError,
    Refused,
    WebSocket,
    half_open,
    open_tcp,
    upgrade,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    Parser = Generator[memoryview, None, "Update"]  # yields what it wants filled

__all__ = [
    "BGRX",
    "COPY_RECT",
    "CURSOR",
    "DESKTOP_SIZE",
    "LAST_RECT",
    "RAW",
    "X_CURSOR",
    "Closed",
    "Ended",
    "Lost",
    "PixelFormat",
    "ProtocolError",
    "Rect",
    "Refused",
    "Update",
    "Viewer",
    "half_open",
]

RAW, COPY_RECT = 0, 1
DESKTOP_SIZE, LAST_RECT, CURSOR, X_CURSOR = -223, -224, -239, -240

_VERSION = b"RFB 003.008\n"
_SECURITY_NONE = 1


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """RFC 6143, section 7.4; the default is 32-bit BGRX, little-endian, that every test reads."""

    bits_per_pixel: int = 32
    depth: int = 24
    big_endian: bool = False
    true_colour: bool = True
    maxima: tuple[int, int, int] = (255, 255, 255)
    shifts: tuple[int, int, int] = (16, 8, 0)

    def pack(self) -> bytes:
        """The 16 bytes of the wire."""
        flags = (self.big_endian, self.true_colour)
        sizes = (self.bits_per_pixel, self.depth)
        return struct.pack(">BB??HHHBBBxxx", *sizes, *flags, *self.maxima, *self.shifts)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read the 16 bytes of the wire."""
        bits, depth, big, true, *rest = struct.unpack(">BB??HHHBBBxxx", data)
        return cls(bits, depth, big, true, (rest[0], rest[1], rest[2]), (rest[3], rest[4], rest[5]))


BGRX = PixelFormat()


@dataclass(frozen=True, slots=True)
class Rect:
    """One rectangle of an update, in pixels."""

    x: int
    y: int
    width: int
    height: int
    encoding: int


@dataclass(frozen=True, slots=True)
class Update:
    """One FramebufferUpdate; times are time.monotonic()'s: its first byte's, and its last one's."""

    rects: tuple[Rect, ...]
    started_s: float
    finished_s: float


class Viewer:
    """A connected viewer. It asks for nothing by itself; `connect` sets BGRX and cheap encodings.

    Sends never wait (see `websocket_client`), and from the server's Close on they are dropped.

    Attributes:
        websocket: the connection below, with its counters and its switches to misbehave.
        width, height, name: of the desktop; the size follows DesktopSize.
        server_format: the pixel format that the server offered.
        connect_s: seconds that each step took: tcp, http, version, security, init.
        framebuffer: the pixels received so far, row by row, in the pixel format set.
        mid_update: an update has begun and its end has not come.
        bells, cut_texts: what else the server sent.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.connect_s: dict[str, float] = {}
        self.width = self.height = 0
        self.name = ""
        self.server_format = self.format = BGRX
        self.framebuffer = bytearray()
        self.mid_update = False
        self.bells = 0
        self.cut_texts: list[str] = []
        self._parser = self._next_update()
        self._wanted = memoryview(b"")

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        timeout_s: float = 10,
        headers: Mapping[str, str] | None = None,
        recv_buffer_bytes: int | None = None,
    ) -> Viewer:
        """Connect to a ws:// URL, upgrade, and shake hands (security None, shared).

        Raises:
            Refused: an HTTP answer other than 101.
            Lost: TCP failed before that answer, or the whole took longer than `timeout_s`.
            Ended: the stream was closed after the 101, before the handshake's end.
            ProtocolError: the server broke WebSocket or RFB, or did not offer security None.
        """
        deadline = time.monotonic() + timeout_s
        steps: dict[str, float] = {}
        lap = _stopwatch(steps)
        host, port = _address(url)
        sock = open_tcp(host, port, timeout_s=timeout_s, recv_buffer_bytes=recv_buffer_bytes)
        try:
            lap("tcp")
            left_s = deadline - time.monotonic()
            viewer = cls(upgrade(sock, url, headers=headers, timeout_s=left_s))
            lap("http")
            viewer.connect_s = steps
            viewer._handshake(deadline, lap)
        except TimeoutError as error:
            sock.close()
            raise Lost(f"timed out after {timeout_s} s in the handshake, past {steps}") from error
        except Ended as error:
            closed = error.closed
            with contextlib.suppress(TimeoutError):
                closed = viewer.wait_closed(max(1, deadline - time.monotonic()))
            sock.close()
            raise Ended(closed) from None
        except BaseException:
            sock.close()
            raise
        viewer.set_pixel_format(BGRX)
        viewer.set_encodings(COPY_RECT, RAW, DESKTOP_SIZE, LAST_RECT)
        return viewer

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave cleanly, unless the stream has ended."""
        self.websocket.__exit__()

    # Client to server, RFC 6143, section 7.5

    def set_pixel_format(self, pixel_format: PixelFormat) -> None:
        """Change the format of all pixels from now on; not while an update is on its way."""
        self.raw(struct.pack(">Bxxx", 0) + pixel_format.pack())
        self.format = pixel_format
        self._resize(self.width, self.height)

    def set_encodings(self, *encodings: int) -> None:
        """Request encodings of this module, the preferred one first."""
        self.raw(struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings))

    def request_update(
        self,
        *,
        incremental: bool,
        x: int = 0,
        y: int = 0,
        w: int | None = None,
        h: int | None = None,
    ) -> None:
        """Ask for an update of a rectangle; without a size, all that is right of and below x, y."""
        w = self.width - x if w is None else w
        h = self.height - y if h is None else h
        self.raw(struct.pack(">B?HHHH", 3, incremental, x, y, w, h))

    def key(self, keysym: int, down: bool) -> None:
        """Press or release a key."""
        self.raw(struct.pack(">B?xxI", 4, down, keysym))

    def pointer(self, x: int, y: int, buttons: int = 0) -> None:
        """Move the pointer, with the mask of the buttons held (1 is the left one)."""
        self.raw(struct.pack(">BBHH", 5, buttons, x, y))

    def cut_text(self, text: str) -> None:
        """Offer a clipboard text; RFC 6143 allows Latin-1 only."""
        data = text.encode("latin-1")
        self.raw(struct.pack(">BxxxI", 6, len(data)) + data)

    def set_desktop_size(self, width: int, height: int) -> None:
        """Ask for another desktop size (the SetDesktopSize extension, one screen)."""
        screen = struct.pack(">IHHHHI", 0, 0, 0, width, height, 0)
        self.raw(struct.pack(">BxHHBx", 251, width, height, 1) + screen)

    def raw(self, data: bytes) -> None:
        """Send any bytes as one WebSocket message; `websocket.send_tcp` sends below the framing."""
        self.websocket.send(data)

    # Server to client, section 7.6

    def read_update(self, timeout_s: float) -> Update:
        """Read up to the next whole FramebufferUpdate and draw it into `framebuffer`.

        Raises:
            TimeoutError: it was not all here in time; what was read is kept, so call again.
                Each call, even with no time, reads what one look at the socket yields.
            Ended: the stream ended.
            ProtocolError: an encoding that was not asked for, or any other nonsense.
        """
        deadline = time.monotonic() + timeout_s
        received_bytes = self.websocket.received_bytes
        while True:
            while self._wanted:
                size = self.websocket.read_some(self._wanted, deadline)
                self._wanted = self._wanted[size:]
                if self.websocket.received_bytes > received_bytes and time.monotonic() > deadline:
                    raise TimeoutError("the update is still coming")
            try:
                self._wanted = next(self._parser)
            except StopIteration as done:
                self._parser = self._next_update()
                update: Update = done.value
                return update

    def pixel(self, x: int, y: int) -> tuple[int, int, int]:
        """(red, green, blue) of a pixel of `framebuffer`, each 0 to 255."""
        size = self.format.bits_per_pixel // 8
        offset = (y * self.width + x) * size
        pixel = self.framebuffer[offset : offset + size]
        value = int.from_bytes(pixel, "big" if self.format.big_endian else "little")
        red, green, blue = (
            (value >> shift & maximum) * 255 // maximum
            for shift, maximum in zip(self.format.shifts, self.format.maxima, strict=True)
        )
        return red, green, blue

    def wait_closed(self, timeout_s: float) -> Closed:
        """Read and discard until the server's Close and the end of TCP: `WebSocket.wait_closed`."""
        return self.websocket.wait_closed(timeout_s)

    def close(self, code: int = 1000, reason: str = "", *, timeout_s: float = 5) -> Closed:
        """Leave as a browser does: Close, wait for the server's, wait for the end of TCP."""
        return self.websocket.close(code, reason, timeout_s=timeout_s)

    # The handshake, section 7.1 to 7.3

    def _handshake(self, deadline: float, lap: Callable[[str], None]) -> None:
        version = self._read(len(_VERSION), deadline)
        if version != _VERSION:
            raise ProtocolError(f"RFB version {version!r}")
        self.raw(_VERSION)
        lap("version")
        kinds = self._read(self._read(1, deadline)[0], deadline)
        if _SECURITY_NONE not in kinds:
            raise ProtocolError(f"security types {list(kinds)}" + self._why(deadline, bool(kinds)))
        self.raw(bytes([_SECURITY_NONE]))
        if result := int.from_bytes(self._read(4, deadline), "big"):
            raise ProtocolError(f"security result {result}" + self._why(deadline, known=False))
        self.raw(b"\1")  # shared
        lap("security")
        width, height, offered, size = struct.unpack(">HH16sI", self._read(24, deadline))
        self.server_format = PixelFormat.unpack(offered)
        self.name = self._read(size, deadline).decode()
        self._resize(width, height)
        lap("init")

    def _why(self, deadline: float, known: bool) -> str:
        if known:
            return ""
        size = int.from_bytes(self._read(4, deadline), "big")
        return ": " + self._read(size, deadline).decode(errors="replace")

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            rest = rest[self.websocket.read_some(rest, deadline) :]
        return bytes(data)

    # The parser: a generator, so that it can stop at any byte and go on later

    def _next_update(self) -> Parser:
        while True:
            (kind,) = yield from _bytes(1)
            if kind == 0:
                return (yield from self._framebuffer_update())
            if kind == 1:
                _first, count = struct.unpack(">xHH", (yield from _bytes(5)))
                yield from _bytes(count * 6)
            elif kind == 2:
                self.bells += 1
            elif kind == 3:
                (size,) = struct.unpack(">xxxI", (yield from _bytes(7)))
                self.cut_texts.append((yield from _bytes(size)).decode("latin-1"))
            else:
                raise ProtocolError(f"unknown server message {kind}")

    def _framebuffer_update(self) -> Parser:
        self.mid_update = True
        started_s = time.monotonic()
        rects: list[Rect] = []
        (count,) = struct.unpack(">xH", (yield from _bytes(3)))
        for _ in range(count):
            rect = Rect(*struct.unpack(">HHHHi", (yield from _bytes(12))))
            if rect.encoding == LAST_RECT:
                break
            yield from self._rect(rect)
            rects.append(rect)
        self.mid_update = False
        return Update(tuple(rects), started_s, time.monotonic())

    def _rect(self, rect: Rect) -> Generator[memoryview, None, None]:
        mask_bytes = (rect.width + 7) // 8 * rect.height
        match rect.encoding:
            case 0:
                yield from self._rows(rect)
            case 1:
                x, y = struct.unpack(">HH", (yield from _bytes(4)))
                source = Rect(x, y, rect.width, rect.height, RAW)
                pixels = [bytes(row) for row in self._rows(source)]  # the two may overlap
                for row, line in zip(self._rows(rect), pixels, strict=True):
                    row[:] = line
            case -223:
                self._resize(rect.width, rect.height)
            case -239:
                bytes_per_pixel = self.format.bits_per_pixel // 8
                yield from _bytes(rect.width * rect.height * bytes_per_pixel + mask_bytes)
            case -240:
                yield from _bytes(6 + 2 * mask_bytes if mask_bytes else 0)
            case _:
                raise ProtocolError(f"{rect} has an encoding that was not asked for")

    def _rows(self, rect: Rect) -> Generator[memoryview, None, None]:
        """Each row of a rectangle of the framebuffer; whole rows come as one piece."""
        if rect.x + rect.width > self.width or rect.y + rect.height > self.height:
            raise ProtocolError(f"{rect} does not fit in {self.width}x{self.height}")
        view = memoryview(self.framebuffer)
        size = self.format.bits_per_pixel // 8
        if rect.width == self.width:
            yield view[rect.y * rect.width * size : (rect.y + rect.height) * rect.width * size]
            return
        for y in range(rect.y, rect.y + rect.height):
            start = (y * self.width + rect.x) * size
            yield view[start : start + rect.width * size]

    def _resize(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.framebuffer = bytearray(width * height * (self.format.bits_per_pixel // 8))


def _bytes(size: int) -> Generator[memoryview, None, bytes]:
    data = bytearray(size)
    yield memoryview(data)
    return bytes(data)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "ws" or not parts.hostname:
        raise ValueError(f"not a ws:// URL: {parts.scheme}://{parts.netloc}")
    return parts.hostname, parts.port or 80


def _stopwatch(steps: dict[str, float]) -> Callable[[str], None]:
    started = time.monotonic()

    def lap(name: str) -> None:
        steps[name] = time.monotonic() - started - sum(steps.values())

    return lap
