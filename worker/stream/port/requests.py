"""The requests that a stream server is serving: a thread each, of limited number."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.stream.port.triage import Kind
from worker.trusted_proxies import client_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.stream.port.triage import Request

THREADS_MAX: Final = 128
OTHER_THREADS_MAX: Final = 32
OTHER_THREADS_PER_CLIENT: Final = 24


@dataclass(eq=False, slots=True)
class _Other:
    """A request without a valid token that is served.

    Attributes:
        client: who has sent it.
        connection: a copy of its connection's descriptor, by which it can be ended: its thread may
            close its own one at any time.
    """

    client: str
    connection: socket.socket | None

    def end(self) -> None:
        """End its connection, and so its thread, soon."""
        if self.connection is not None:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the copy."""
        if self.connection is not None:
            self.connection.close()


class RequestThreads:
    """The threads of the requests that are served, viewers included.

    Requests that show no valid token use at most `OTHER_THREADS_MAX` of them, so that they leave
    threads for viewers. The client with the most of those makes room for one that has fewer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._others: dict[_Other, None] = {}  # oldest first; without those that were ended
        self._own = threading.local()

    def start(
        self,
        request: Request,
        serve: Callable[[], None],
        viewers: int,
        connection: socket.socket | None = None,
    ) -> bool:
        """Start a thread for a request; False if there is none free for it.

        Args:
            request: as sorted.
            serve: what the thread runs; it raises nothing.
            viewers: how many of the threads belong to admitted viewers.
            connection: the request's, which may be ended for a request of another client.
        """
        with self._lock:
            if len(self._threads) - viewers >= THREADS_MAX:
                return False
            other = None
            if request.kind is Kind.OTHER:
                client = client_of(request.address)
                if not self._has_room(client):
                    return False
                try:
                    other = _Other(client, connection and connection.dup())
                except OSError:  # no descriptor is left
                    return False
                self._others[other] = None
            thread = threading.Thread(
                target=self._run, args=(serve, other), name="request", daemon=True
            )
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            self._ended(thread, other)
            return False
        return True

    def became_viewer(self) -> None:
        """Count the calling thread's request as a viewer's, which is not ended for another one."""
        with self._lock:
            self._others.pop(self._own.other, None)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of all of them, at most so long."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _has_room(self, client: str) -> bool:
        """Whether a client may have one more, after another one was ended for it if need be."""
        counts = Counter(other.client for other in self._others)
        if counts[client] >= OTHER_THREADS_PER_CLIENT:
            return False
        if len(self._others) < OTHER_THREADS_MAX:
            return True
        [(largest, count)] = counts.most_common(1)
        if count < counts[client] + 2:
            return False
        oldest = next(
            (each for each in self._others if each.client == largest and each.connection), None
        )
        if oldest is None:
            return False
        del self._others[oldest]
        oldest.end()
        return True

    def _run(self, serve: Callable[[], None], other: _Other | None) -> None:
        self._own.other = other
        try:
            serve()
        finally:
            self._ended(threading.current_thread(), other)

    def _ended(self, thread: threading.Thread, other: _Other | None) -> None:
        with self._lock:
            self._threads.discard(thread)
            if other is not None:
                self._others.pop(other, None)
                other.close()
