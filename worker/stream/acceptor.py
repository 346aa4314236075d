"""Accepts connections, and passes on those whose request head has arrived.

A connection gets a thread only when its request line and headers have arrived. Until then it is an
entry in a table of limited size, with a deadline, so that clients that never complete a request
cannot exclude others: in a full table, the client with the most entries loses its oldest. The head
is only peeked at: the HTTP handler reads it from the socket.
"""

from __future__ import annotations

import errno
import re
import select
import socket
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from worker.linux import drop_connections
from worker.stream.port.answers import refusal, send
from worker.trusted_proxies import client_of

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_MAX_BYTES: Final = 32 * 1024
HEAD_TIMEOUT_S: Final = 10.0
HALF_OPEN_MAX: Final = 256
_ACCEPT_BATCH: Final = 64
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_S: Final = 0.05
_END_OF_HEAD: Final = (b"\r\n\r\n", b"\n\n")

_FIRST_LINE: Final = re.compile(rb"[!-~]+ [!-~]+ HTTP/[0-9]\.[0-9]\r?\n")


@dataclass(frozen=True, slots=True)
class _HalfOpen:
    connection: socket.socket
    address: tuple[str, int]
    client: str
    accepted_at: float
    deadline: float


class Acceptor:
    """The listening socket, and the connections whose request head is not complete."""

    def __init__(
        self,
        listener: socket.socket,
        epoll: select.epoll,
        start_request: Callable[[socket.socket, tuple[str, int], float, bytes], None],
        refused: Callable[[str, HTTPStatus], None],
        *,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        half_open_max: int = HALF_OPEN_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start accepting.

        Args:
            listener: the listening TCP socket.
            epoll: the caller waits on it, and calls `handle` for descriptors that are not its own.
            start_request: called with each connection whose request head is complete (blocking
                again), the peer's address, when it was accepted, by time.monotonic(), and the head,
                which is still to be read from the connection.
            refused: called with the address and HTTP status of each connection refused here.
            head_timeout_s: for a request's line and headers to arrive.
            half_open_max: connections without a complete head; at one more, the oldest one of the
                client that has the most is refused.
            clock: the time in seconds, for the deadlines.
        """
        self._listener = listener
        self._listener.setblocking(False)
        self._accepting = True
        self._epoll = epoll
        self._start_request = start_request
        self._refused = refused
        self._head_timeout_s, self._half_open_max = head_timeout_s, half_open_max
        self._clock = clock
        self._half_open: OrderedDict[int, _HalfOpen] = OrderedDict()  # oldest first
        self._counts: Counter[str] = Counter()  # of the half-open connections, by client
        epoll.register(listener.fileno(), select.EPOLLIN)

    def handle(self, descriptor: int) -> None:
        """Handle a descriptor that epoll has reported."""
        if descriptor == self._listener.fileno():
            self.accept()
        elif descriptor in self._half_open:
            self._look(descriptor)

    def accept(self) -> int:
        """Accept the connections in the backlog; returns how many there were."""
        for count in range(_ACCEPT_BATCH):
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                return count
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._make_room()
                return count  # or ECONNABORTED: the next round tries again
            self._take(connection, (str(address[0]), int(address[1])))
        return _ACCEPT_BATCH

    def expire(self) -> float | None:
        """Refuse connections past their deadline; the seconds until the next deadline."""
        now = self._clock()
        while self._half_open:
            oldest = next(iter(self._half_open.values()))
            if oldest.deadline > now:
                return oldest.deadline - now
            self._refuse(oldest, HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
        return None

    def leave(self, status: HTTPStatus, detail: str) -> None:
        """Stop accepting: new connections stay in the backlog for the next server.

        Args:
            status: for connections whose request has not arrived.
            detail: for the body.
        """
        if self._accepting:
            self._epoll.unregister(self._listener.fileno())
            self._accepting = False
        for entry in list(self._half_open.values()):
            self._refuse(entry, status, detail)

    def close(self, status: HTTPStatus, detail: str) -> None:
        """Stop listening, without resetting a connection that is established.

        From here on the kernel drops new connection attempts, so the backlog of established
        connections can be emptied before the socket is closed.

        Args:
            status: as for `leave`.
            detail: the same.
        """
        drop_connections(self._listener)
        while self.accept():
            pass
        self.leave(status, detail)
        self._listener.close()

    def _make_room(self) -> None:
        """Free a descriptor: epoll would report the waiting connection again at once."""
        if self._half_open:
            self._evict("too many connections")
        else:
            time.sleep(_PAUSE_S)

    def _evict(self, detail: str) -> None:
        """Refuse the oldest half-open connection of the client that has the most of them."""
        [(client, _)] = self._counts.most_common(1)
        oldest = next(entry for entry in self._half_open.values() if entry.client == client)
        self._refuse(oldest, HTTPStatus.SERVICE_UNAVAILABLE, detail)

    def _take(self, connection: socket.socket, address: tuple[str, int]) -> None:
        connection.setblocking(False)
        if len(self._half_open) >= self._half_open_max:
            self._evict("too many unfinished requests")
        deadline = self._clock() + self._head_timeout_s
        client = client_of(address[0])
        entry = _HalfOpen(connection, address, client, time.monotonic(), deadline)
        self._half_open[connection.fileno()] = entry
        self._counts[entry.client] += 1
        # Edge-triggered: one report for each arrival, although the data is not read here.
        self._epoll.register(
            connection.fileno(), select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
        )

    def _look(self, descriptor: int) -> None:
        entry = self._half_open[descriptor]
        try:
            head = entry.connection.recv(HEAD_MAX_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            head = b""
        if not head:
            self._forget(entry).close()
        elif b"\n" in head and _FIRST_LINE.match(head) is None:
            self._refuse(entry, HTTPStatus.BAD_REQUEST, "not an HTTP/1.1 request")
        elif any(end in head for end in _END_OF_HEAD):
            connection = self._forget(entry)
            connection.setblocking(True)
            self._start_request(connection, entry.address, entry.accepted_at, head)
        elif len(head) >= HEAD_MAX_BYTES:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._refuse(entry, status, f"the request's head is larger than {HEAD_MAX_BYTES} bytes")
        elif _has_ended(entry.connection):
            self._forget(entry).close()  # it cannot complete its request any more

    def _refuse(self, entry: _HalfOpen, status: HTTPStatus, detail: str) -> None:
        send(self._forget(entry), refusal(status, detail))
        self._refused(entry.address[0], status)

    def _forget(self, entry: _HalfOpen) -> socket.socket:
        del self._half_open[entry.connection.fileno()]
        self._counts[entry.client] -= 1
        if not self._counts[entry.client]:
            del self._counts[entry.client]
        self._epoll.unregister(entry.connection.fileno())
        return entry.connection


def _has_ended(connection: socket.socket) -> bool:
    """Whether the peer has shut down sending; its data may still be unread."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))
