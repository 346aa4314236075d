"""The requests that a stream server is serving: a thread each, of limited number."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from worker.stream.port.triage import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.stream.port.triage import Request

THREADS_MAX: Final = 128
OTHER_THREADS_MAX: Final = 32
OTHER_THREADS_PER_CLIENT: Final = 24


class RequestThreads:
    """The threads of the requests that are served, viewers included.

    Requests that show no valid token use at most `OTHER_THREADS_MAX` of them, so that they leave
    threads for viewers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._others: dict[str, int] = {}

    def start(self, request: Request, serve: Callable[[], None], viewers: int) -> bool:
        """Start a thread for a request; False if there is none free for it.

        Args:
            request: as sorted.
            serve: what the thread runs; it raises nothing.
            viewers: how many of the threads belong to admitted viewers.
        """
        client = request.address if request.kind is Kind.OTHER else None
        with self._lock:
            if len(self._threads) - viewers >= THREADS_MAX or not self._has_room(client):
                return False
            thread = threading.Thread(
                target=self._run, args=(serve, client), name="request", daemon=True
            )
            self._threads.add(thread)
            if client is not None:
                self._others[client] = self._others.get(client, 0) + 1
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            self._ended(thread, client)
            return False
        return True

    def join(self, timeout_s: float) -> None:
        """Wait for the end of all of them, at most so long."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _has_room(self, client: str | None) -> bool:
        if client is None:
            return True
        return (
            self._others.get(client, 0) < OTHER_THREADS_PER_CLIENT
            and sum(self._others.values()) < OTHER_THREADS_MAX
        )

    def _run(self, serve: Callable[[], None], client: str | None) -> None:
        try:
            serve()
        finally:
            self._ended(threading.current_thread(), client)

    def _ended(self, thread: threading.Thread, client: str | None) -> None:
        with self._lock:
            self._threads.discard(thread)
            if client is not None:
                self._others[client] -= 1
                if not self._others[client]:
                    del self._others[client]
