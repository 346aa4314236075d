"""A WebSocket client (RFC 6455) that is strict about what it reads and answers as a browser does.

One thread does all: nothing here waits for a send, so sending cannot deadlock with reading. What
the kernel does not take at once waits in an outbox and leaves with the next read, send or flush.

    Refused         the server gave an HTTP answer other than 101
    Lost            there was no HTTP answer: TCP refused, reset, ended or timed out
    Ended           a read met the end of the stream; it carries what a browser would report
    ProtocolError   the server broke RFC 6455 (or, in `rfb_client`, RFC 6143)
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import json
import os
import select
import socket
import struct
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NO_STATUS, ABNORMAL = 1005, 1006  # what a browser reports when no code, or no Close frame, came

_ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_BUFFER_BYTES = 256 * 1024
_HEAD_LIMIT_BYTES = 64 * 1024
_CONTROL_LIMIT_BYTES = 125
_PACE_STEP_S = 0.01


class Refused(Exception):
    """An HTTP answer other than 101; `detail` is its JSON body's, or None."""

    def __init__(self, status: int, detail: str | None, headers: Message, body: bytes) -> None:
        super().__init__(f"HTTP {status}: {detail or body[:200]!r}")
        self.status = status
        self.detail = detail
        self.headers = headers
        self.body = body


class Lost(Exception):
    """No HTTP answer, or no end of the RFB handshake: the message states where."""


class ProtocolError(Exception):
    """The server sent what the protocol does not allow."""


@dataclass(frozen=True, slots=True)
class Closed:
    """How a connection ended, as a browser's CloseEvent tells it; two compare by code and reason.

    Attributes:
        code: from the server's Close frame; 1005 if that had none; 1006 if no Close frame came.
        reason: from the server's Close frame.
        clean: both sides sent a Close, then the server ended TCP without a reset.
        detail: what was not clean, for people.
    """

    code: int
    reason: str = ""
    clean: bool = field(default=False, compare=False)
    detail: str = field(default="", compare=False)


class Ended(Exception):
    """The stream ended under a read; `wait_closed` then also waits for the end of TCP."""

    def __init__(self, closed: Closed) -> None:
        super().__init__(f"{closed.code} {closed.reason!r} {closed.detail}".rstrip())
        self.closed = closed


class WebSocket:
    """An open connection: binary messages in both directions, and the close.

    Attributes:
        closed: the server's Close (or 1006), from the moment that it was read.
        received_bytes: TCP bytes read, framing included.
        read_rate_bytes_s: read no faster than this; None is no limit.
        answers_pings, answers_close: switch off to misbehave.
        pings: how many came.
    """

    def __init__(self, sock: socket.socket, already_read: bytes = b"") -> None:
        self.closed: Closed | None = None
        self.received_bytes = len(already_read)
        self.read_rate_bytes_s: float | None = None
        self.answers_pings = True
        self.answers_close = True
        self.pings = 0
        sock.settimeout(0)
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock)
        self._view = memoryview(bytearray(max(_BUFFER_BYTES, len(already_read))))
        self._view[: len(already_read)] = already_read
        self._start, self._end = 0, len(already_read)  # what lies in the buffer, not yet parsed
        self._payload_left = 0  # of the data frame being read
        self._in_message = False
        self._outbox = bytearray()
        self._close_sent = False
        self._tcp_ended = False
        self._trouble = ""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave cleanly, unless the stream has ended; without an error if the server does not."""
        try:
            if not self._tcp_ended:
                with contextlib.suppress(TimeoutError, ProtocolError):
                    self.close(timeout_s=2)
        finally:
            self._sock.close()

    # Sending: none of these waits, except flush.

    @property
    def pending_bytes(self) -> int:
        """What was sent here and is not yet taken by the kernel."""
        return len(self._outbox)

    def send(self, payload: bytes, *, opcode: int = BINARY, fin: bool = True) -> None:
        """Send one masked frame; after a Close it is dropped, as in a browser."""
        size = len(payload)
        if size <= _CONTROL_LIMIT_BYTES:
            head = struct.pack(">BB", fin << 7 | opcode, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", fin << 7 | opcode, 0x80 | 126, size)
        else:
            head = struct.pack(">BBQ", fin << 7 | opcode, 0x80 | 127, size)
        self.send_tcp(head + _masked(payload))

    def send_tcp(self, data: bytes) -> None:
        """Send bytes as they are, outside any frame: half a frame, an unmasked one, garbage."""
        if not self._close_sent:
            self._outbox += data
            self._send_outbox()

    def flush(self, timeout_s: float) -> None:
        """Wait, without reading, until the kernel has taken all that was sent.

        Raises:
            TimeoutError: it did not in time.
        """
        deadline = time.monotonic() + timeout_s
        while self._outbox:
            self._wait(select.POLLOUT, deadline)
            self._send_outbox()

    # Reading

    def read_some(self, target: memoryview, deadline: float) -> int:
        """Fill some of `target`, at least a byte, with message bytes; return how many.

        Args:
            target: not empty.
            deadline: by time.monotonic(); what is already here is read even after it.

        Raises:
            TimeoutError: nothing came by then; no byte is lost, read again.
            Ended: the stream ended.
            ProtocolError: the server broke the framing.
        """
        while True:
            if size := self._take(target):
                return size
            if self.closed:
                raise Ended(self.closed)
            self._receive(deadline)

    def wait_closed(self, timeout_s: float) -> Closed:
        """Read and discard until the server's Close, answer it, and wait for the end of TCP.

        Raises:
            TimeoutError: one of them did not come in time; the message states which.
        """
        deadline = time.monotonic() + timeout_s
        scratch = memoryview(bytearray(_BUFFER_BYTES))
        try:
            while not self.closed:
                with contextlib.suppress(Ended):
                    self.read_some(scratch, deadline)
            while not self._tcp_ended:
                self._receive(deadline)
        except TimeoutError:
            what = f"{self.closed} came, but TCP is still open" if self.closed else "no Close came"
            raise TimeoutError(f"{what} after {timeout_s} s") from None
        self._sock.close()
        clean = self._close_sent and not self._trouble
        self.closed = replace(self.closed, clean=clean, detail=self._trouble)
        return self.closed

    def close(self, code: int = 1000, reason: str = "", *, timeout_s: float = 5) -> Closed:
        """Send Close, unless one was sent, and wait for the server's and for the end of TCP."""
        self._send_close(struct.pack(">H", code) + reason.encode())
        return self.wait_closed(timeout_s)

    def abort(self) -> None:
        """Vanish with a TCP reset."""
        with contextlib.suppress(OSError):  # closed already
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
        self._tcp_ended = True

    # Frames

    def _take(self, target: memoryview) -> int:
        while not self._payload_left:
            if self.closed or not self._next_frame():
                return 0
        size = min(len(target), self._payload_left, self._end - self._start)
        target[:size] = self._view[self._start : self._start + size]
        self._start += size
        self._payload_left -= size
        return size

    def _next_frame(self) -> bool:
        """Step over a data frame's header or a whole control frame; False if it is not all here."""
        here = self._view[self._start : self._end]
        if len(here) < 2:
            return False
        first, size = here[0], here[1]
        if first & 0x70 or size & 0x80:
            raise ProtocolError(f"reserved bits or a masked frame: {bytes(here[:2]).hex()}")
        head_size = {126: 4, 127: 10}.get(size, 2)
        if len(here) < head_size:
            return False
        if head_size > 2:
            size = int.from_bytes(here[2:head_size], "big")
        fin, opcode = bool(first & 0x80), first & 0x0F
        if opcode >= CLOSE:
            if not fin or size > _CONTROL_LIMIT_BYTES:
                raise ProtocolError(f"control frame {opcode:#x}: fin={fin}, {size} bytes")
            if len(here) < head_size + size:
                return False
            self._start += head_size + size
            self._control(opcode, bytes(here[head_size : head_size + size]))
        else:
            if opcode != (CONTINUATION if self._in_message else BINARY):
                raise ProtocolError(f"opcode {opcode:#x}, in a message: {self._in_message}")
            self._start += head_size
            self._payload_left = size
            self._in_message = not fin
        return True

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.pings += 1
            if self.answers_pings:
                self.send(payload, opcode=PONG)
        elif opcode == CLOSE:
            self.closed = _parse_close(payload)
            if self.answers_close:
                self._send_close(payload[:2])
        elif opcode != PONG:
            raise ProtocolError(f"unknown opcode {opcode:#x}")

    def _send_close(self, payload: bytes) -> None:
        self.send(payload, opcode=CLOSE)
        self._close_sent = True

    # The socket

    def _receive(self, deadline: float) -> None:
        """Wait for bytes or the end of TCP, and send; after the Close, discard what arrives."""
        if self.closed or self._start == self._end:
            self._start = self._end = 0
        elif self._start:
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        limit = len(self._view) - self._end
        if self.read_rate_bytes_s:
            limit = min(limit, max(1, int(self.read_rate_bytes_s * _PACE_STEP_S)))
        while True:
            self._send_outbox()
            try:
                size = self._sock.recv_into(self._view[self._end :], limit)
                break
            except BlockingIOError:
                self._wait(select.POLLIN | (select.POLLOUT if self._outbox else 0), deadline)
            except OSError as error:
                self._trouble = f"TCP ended while reading: {error.strerror}"
                size = 0
                break
        if size:
            self._end += size
            self.received_bytes += size
            if self.read_rate_bytes_s:
                time.sleep(size / self.read_rate_bytes_s)
            return
        self._tcp_ended = True
        if not self.closed:
            self._trouble = self._trouble or "TCP ended without a Close frame"
            self.closed = Closed(ABNORMAL, detail=self._trouble)

    def _send_outbox(self) -> None:
        try:
            while self._outbox:
                del self._outbox[: self._sock.send(self._outbox)]
        except BlockingIOError:
            pass
        except OSError as error:
            # The kernel still holds what the server sent before its reset, so reading goes on.
            self._trouble = self._trouble or f"TCP ended while sending: {error.strerror}"
            self._outbox.clear()

    def _wait(self, events: int, deadline: float) -> None:
        self._poll.modify(self._sock, events)
        if not self._poll.poll(max(0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("nothing came from the server in time")


def open_tcp(
    host: str, port: int, *, timeout_s: float, recv_buffer_bytes: int | None = None
) -> socket.socket:
    """Connect; a receive buffer's size must be set before, for TCP settles its window then.

    Raises:
        Lost: refused, unreachable, or not connected in time.
    """
    deadline = time.monotonic() + timeout_s
    failure: OSError | None = None
    for family, kind, proto, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        try:
            if recv_buffer_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, recv_buffer_bytes)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(_left_s(deadline))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise Lost(f"TCP connect to {host}:{port}: {failure}") from failure


def upgrade(
    sock: socket.socket, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float
) -> WebSocket:
    """Ask for the upgrade of RFC 6455, section 4, with the subprotocol "binary".

    Raises:
        Refused: an answer other than 101.
        Lost: no whole answer.
        ProtocolError: a 101 that a browser would not take.
    """
    deadline = time.monotonic() + timeout_s
    parts = urlsplit(url)
    key = base64.b64encode(os.urandom(16)).decode()
    fields = {
        "Host": parts.netloc,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": "binary",
    } | dict(headers or {})
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    try:
        sock.settimeout(_left_s(deadline))
        sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        status, answer, rest = _read_head(sock, deadline)
        if status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            body = _read_body(sock, answer, rest, deadline)
            raise Refused(status, _json_detail(body), answer, body)
    except OSError as error:
        raise Lost(f"no whole HTTP answer: {error}") from error
    _check_upgrade(answer, key)
    return WebSocket(sock, rest)


def half_open(host: str, port: int, *, timeout_s: float = 10) -> socket.socket:
    """Connect and send an HTTP request that never ends; the caller closes the socket."""
    sock = open_tcp(host, port, timeout_s=timeout_s)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: half-o")
    return sock


def _left_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())  # a timeout of 0 would mean "do not block"


def _masked(payload: bytes) -> bytes:
    mask, size = os.urandom(4), len(payload)
    stream = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return mask + (int.from_bytes(payload, "big") ^ stream).to_bytes(size, "big")


def _parse_close(payload: bytes) -> Closed:
    if not payload:
        return Closed(NO_STATUS)
    code = int.from_bytes(payload[:2], "big")
    allowed = 1000 <= code < 1015 and code not in {1004, NO_STATUS, ABNORMAL}
    if len(payload) == 1 or not (allowed or 3000 <= code < 5000):
        raise ProtocolError(f"Close with the payload {payload!r}")
    try:
        return Closed(code, payload[2:].decode())
    except UnicodeDecodeError as error:
        raise ProtocolError(f"Close with the reason {payload[2:]!r}") from error


def _read_head(sock: socket.socket, deadline: float) -> tuple[int, Message, bytes]:
    head = b""
    while b"\r\n\r\n" not in head:
        head += _read_http(sock, deadline)
        if len(head) > _HEAD_LIMIT_BYTES:
            raise ProtocolError("an HTTP head without end")
    head, _, rest = head.partition(b"\r\n\r\n")
    status_line, _, lines = head.partition(b"\r\n")
    version, _, status = status_line.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not status[:3].isdigit():
        raise ProtocolError(f"an HTTP answer that starts with {status_line!r}")
    fields = http.client.parse_headers(io.BytesIO(lines + b"\r\n\r\n"))
    return int(status[:3]), fields, rest


def _read_body(sock: socket.socket, fields: Message, body: bytes, deadline: float) -> bytes:
    length = fields["Content-Length"]
    with contextlib.nullcontext() if length else contextlib.suppress(EOFError):
        while not length or len(body) < int(length):
            body += _read_http(sock, deadline)
    return body


def _read_http(sock: socket.socket, deadline: float) -> bytes:
    sock.settimeout(_left_s(deadline))
    data = sock.recv(_HEAD_LIMIT_BYTES)
    if not data:
        raise _EndOfFileError("TCP ended")
    return data


class _EndOfFileError(EOFError, ConnectionError):
    """TCP ended before the HTTP answer did."""


def _json_detail(body: bytes) -> str | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value.get("detail") if isinstance(value, dict) else None


def _check_upgrade(fields: Message, key: str) -> None:
    digest = hashlib.sha1((key + _ACCEPT_GUID).encode(), usedforsecurity=False).digest()
    wanted = {
        "Upgrade": "websocket",
        "Connection": "upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(digest).decode(),
        "Sec-WebSocket-Protocol": "binary",
    }
    for name, value in wanted.items():
        got = fields.get(name, "")
        if value not in ({got} if name.startswith("Sec-") else {got.lower()}):
            raise ProtocolError(f"101 with {name}: {got!r}, not {value!r}")
