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
import struct
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
_WAITING_MAX: Final = 4 * _BACKLOG
_REFUSED_MAX: Final = 1000
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: the client gets a reset, no TIME_WAIT is left
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

    def is_usable(self) -> bool:
        """Whether no worker has shut down one of the sockets."""
        waiting = select.poll()
        for each in self.display:
            waiting.register(each, select.POLLRDHUP)
        listens = self.listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(listens) and not waiting.poll(0)

    def drain(self) -> None:
        """Close connections to an earlier worker, which it has not accepted."""
        for each in (self.listener, *self.display):
            each.setblocking(False)
            with contextlib.suppress(OSError):
                for _ in range(_WAITING_MAX):
                    _reset_one(each)
            each.setblocking(True)

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
        self._refused: dict[int, int] = {}
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
        while self._free and not self._free[-1].is_usable():
            self._drop(self._free.pop())
        if self._free or await self._add():
            return True
        self._wanted.set()
        return False

    def take(self) -> Names:
        """The names for a worker.

        Raises:
            NoNames: there are none; see `available`.
        """
        if not self._free:
            raise NoNames
        names = self._free.pop()
        self._stop_refusing(names)
        names.drain()
        return names

    def give_back(self, names: Names) -> None:
        """Make the names of a worker available: none of its processes is left."""
        if self._is_closed or self._existing > self._count or not names.is_usable():
            self._drop(names)
        else:
            self._keep(names)
        self._on_free()

    def _keep(self, names: Names) -> None:
        """Keep names that no worker has, and close each connection to their port at once.

        The port is listened on all the time: if it were not, connections of the last worker that
        still exist would prevent it (bind(2), EADDRINUSE), or another process could do it.
        """
        linux.undrop_connections(names.listener)
        names.listener.setblocking(False)
        self._free.append(names)
        self._refused[names.listener.fileno()] = 0
        asyncio.get_running_loop().add_reader(names.listener.fileno(), self._refuse, names)

    def _refuse(self, names: Names) -> None:
        number = names.listener.fileno()
        self._refused[number] += 1
        with contextlib.suppress(OSError):
            _reset_one(names.listener)
        if self._refused[number] == _REFUSED_MAX:  # a flood: the kernel drops the rest
            linux.drop_connections(names.listener)
            asyncio.get_running_loop().remove_reader(number)

    def _stop_refusing(self, names: Names) -> None:
        if self._refused.pop(names.listener.fileno(), None) is not None:
            asyncio.get_running_loop().remove_reader(names.listener.fileno())
            linux.undrop_connections(names.listener)

    def _drop(self, names: Names) -> None:
        self._existing -= 1
        self._stop_refusing(names)
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
        self._keep(made)
        if self._is_reported and self._existing >= self._count:
            self._is_reported = False
            self._report("names.reserved", reserved=self._existing)
        return True

    def _make(self) -> Names:
        listener = _listening()
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


def _listening() -> socket.socket:
    """A socket that listens on a free port.

    Raises:
        OSError: there is none.
    """
    listener = socket.socket()
    try:
        listener.bind((HOST, 0))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _reset_one(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
