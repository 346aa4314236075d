"""The names that a worker needs and that all processes of the machine share: a port and a display.

They are reserved for as many workers as may run, before a task runs, and for the life of the API: a
task that takes all others prevents no start. A worker inherits the sockets; when none of its
processes is left, another one gets them. What cannot be reserved is tried again with
back-off. Until then fewer workers run, and queued tasks wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import select
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker import linux
from worker.api.runners.background import back_off_s
from worker.api.runners.machine_faults import describe
from worker.api.runners.threads import Threads
from worker.display import reserved

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

HOST: Final = "127.0.0.1"
_BACKLOG: Final = 128
_BIND_TRIES: Final = 10
_WAITING_MAX: Final = 4 * _BACKLOG
_REMEDY: Final = "end what occupies all ports of 127.0.0.1, or all X displays"


class NoNames(Exception):
    """No port or display is available."""

    def __str__(self) -> str:
        return f"no port or display is available; {_REMEDY}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The listening sockets of one worker: of its stream, and of its X server."""

    listener: socket.socket
    display: Sequence[socket.socket]

    @property
    def port(self) -> int:
        """The stream's port."""
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def descriptors(self) -> list[int]:
        """That of the stream, then those of the display."""
        return [self.listener.fileno(), *(each.fileno() for each in self.display)]

    def activate(self) -> bool:
        """Listen for a worker; False if an earlier one has made a socket unusable.

        Connections to an earlier worker that were not accepted are closed.
        """
        self.park()
        linux.undrop_connections(self.listener)
        try:
            self.listener.listen(_BACKLOG)
        except OSError:
            return False
        return all(map(_drained, self.display))

    def park(self) -> None:
        """Stop listening, so that viewers of the last worker are refused; the port stays bound."""
        with contextlib.suppress(OSError):  # `activate` reports it
            # On a socket that does not listen, shutdown(2) would end the input of all connections
            # that it accepts later.
            self.listener.listen(_BACKLOG)
            self.listener.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Make the names available to every process."""
        self.listener.close()
        reserved.release(self.display)

    def leave(self) -> None:
        """Leave the names to the worker that has inherited them."""
        for each in (self.listener, *self.display):
            each.close()


class Reservations:
    """The names of as many workers as may run. Used inside a running event loop."""

    def __init__(
        self,
        count: int,
        *,
        with_files: bool,
        report: Callable[..., None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Reserve nothing yet.

        Args:
            count: how many workers may run.
            with_files: whether workers share /tmp, and so the files of X sockets.
            report: emits an event.
            sleep: waits before a further attempt.
        """
        self._count, self._with_files = count, with_files
        self._report, self._sleep = report, sleep
        self._free: list[Names] = []
        self._existing = 0
        self._number = 0
        self._is_reported = self._is_closed = False
        self._wanted = asyncio.Event()
        self._threads = Threads(1, "reserve")
        self._on_free: Callable[[], None] = lambda: None

    async def open(self, on_free: Callable[[], None]) -> None:
        """Reserve what is possible now.

        Args:
            on_free: called when a worker can be started again.
        """
        self._on_free = on_free
        while self._existing < self._count and await self._add():
            pass

    def close(self) -> None:
        """Make free names available to every process; those of workers stay theirs."""
        self._is_closed = True
        self._threads.close()
        while self._free:
            self._drop(self._free.pop())

    async def wanted(self) -> None:
        """Return when names are missing."""
        await self._wanted.wait()

    async def fill(self) -> None:
        """Reserve what is missing, with back-off."""
        failures = 0
        while self._existing < self._count or (self._wanted.is_set() and not self._free):
            if await self._add():
                failures = 0
                self._on_free()
            else:
                failures += 1
                await self._sleep(back_off_s(failures))
        self._wanted.clear()

    async def available(self) -> bool:
        """Whether there are names for a worker; `on_free` is called when there are some again."""
        if self._free:
            return True
        if await self._add():
            return True
        self._wanted.set()
        return False

    def take(self) -> Names:
        """The names for a worker.

        Raises:
            NoNames: there are none; see `available`.
        """
        while self._free:
            names = self._free.pop()
            if names.activate():
                return names
            self._drop(names)
        raise NoNames

    def give_back(self, names: Names) -> None:
        """Make the names of a worker available: none of its processes is left."""
        if self._is_closed or self._existing > self._count:
            self._drop(names)
        else:
            names.park()
            self._free.append(names)
        self._on_free()

    def _drop(self, names: Names) -> None:
        self._existing -= 1
        names.close()
        if not self._is_closed and self._existing < self._count:
            self._wanted.set()

    async def _add(self) -> bool:
        """Reserve the names of one more worker; a failure after a success is reported."""
        try:
            made = await self._threads.call(self._make)
        except (NoNames, OSError) as error:
            if not self._is_reported:
                self._is_reported = True
                why = describe(error)
                self._report("names.missing", reserved=self._existing, why=why, remedy=_REMEDY)
            return False
        self._existing += 1
        self._free.append(made)
        if self._is_reported and self._existing >= self._count:
            self._is_reported = False
            self._report("names.reserved", reserved=self._existing)
        return True

    def _make(self) -> Names:
        listener = _bound()
        try:
            return Names(listener=listener, display=self._reserve_display())
        except BaseException:
            listener.close()
            raise

    def _reserve_display(self) -> Sequence[socket.socket]:
        """The first free display after the one that was found last."""
        numbers = reserved.NUMBERS
        for number in itertools.chain(numbers[self._number :], numbers[: self._number]):
            try:
                found = reserved.reserve(number, with_file=self._with_files)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            self._number = number + 1
            return found
        raise NoNames


def _bound() -> socket.socket:
    """A socket with a free port, which it keeps when it stops listening.

    Raises:
        OSError: there is none.
    """
    for tries_left in reversed(range(_BIND_TRIES)):
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            address = probe.getsockname()
        bound = socket.socket()
        try:
            bound.bind(address)  # a port that the kernel has chosen for this socket is not kept
        except OSError:
            bound.close()
            if not tries_left:
                raise
        else:
            return bound
    raise AssertionError


def _drained(listener: socket.socket) -> bool:
    """Close connections that were not accepted; False if the socket was shut down."""
    waiting = select.poll()
    waiting.register(listener, select.POLLRDHUP)
    if waiting.poll(0):
        return False
    listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(_WAITING_MAX):
            listener.accept()[0].close()
    listener.setblocking(True)
    return True
