"""Keeps the programs of the display stack running: start, readiness, restarts, end.

A program ends, or is not ready in time ─▶ back-off ─▶ start ─▶ ready; and again, until `unwatch`.
Only at the start of the session is a program that does not work an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from worker.errors import SessionError, SessionLost, StartFailed
from worker.process.program import Backoff
from worker.process.supervisord import ProgramEnd
from worker.process.watched import WatchedProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from worker.process.program import Program
    from worker.process.supervisord import Supervisord

RESTART_READY_TIMEOUT_S: Final = 20.0  # then the restarted program is killed and started again
STOP_TIMEOUT_S: Final = 1.0
START_EXITS_MAX: Final = 5  # by themselves, before a program was ever ready
REPORTED_RESTARTS: Final = 10  # in a row; later ones are reported at powers of two
_CANNOT_EXECUTE: Final = {126, 127}  # the exit status of a program that could not be executed


def _no_action(*_: str) -> None:
    pass


def _retrieve(done: asyncio.Future[Any]) -> None:
    """Mark an error as handled that nothing waits for any more."""
    if not done.cancelled():
        done.exception()


def _lost(name: str, output: str) -> SessionLost:
    return SessionLost(f"{name} died" + (f": {output}" if output else ""))


@dataclass(slots=True, kw_only=True)
class ProgramKeeper:
    """The programs of one supervisord.

    Attributes:
        supervisord: runs them.
        emit: writes an event.
        on_change: called when `pids` or `restarts` has changed.
        lost: is set when a program that cannot be replaced has ended, or supervisord itself.
        on_lost: called with the name of a ready program that has ended, and why.
        on_back: called with its name when it is ready again.
        pids: the process id of each program that runs.
        restarts: how often each program that may be restarted was, and became ready.
        clock: the time, in seconds.
        sleep: waits for so many seconds.
    """

    supervisord: Supervisord
    emit: Callable[..., None]
    on_change: Callable[[], None]
    lost: asyncio.Future[SessionLost]
    on_lost: Callable[[str, str], None] = _no_action
    on_back: Callable[[str], None] = _no_action
    pids: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    _programs: dict[str, Program] = field(default_factory=dict)
    _processes: dict[str, WatchedProcess] = field(default_factory=dict)
    _backoffs: dict[str, Backoff] = field(default_factory=dict)
    _starts: set[asyncio.Future[None]] = field(default_factory=set)
    _watchers: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._watch(self._lose_when_ended("supervisord", self.supervisord.process.wait()))

    # -- the start

    async def start(self, *programs: Program) -> None:
        """Start programs in one call, without waiting until they are ready.

        Raises:
            StartFailed: one cannot be executed.
            SessionLost: supervisord does not work.
        """
        # A cancelled call is still answered: `stop` must find the programs that it has started.
        starting = asyncio.ensure_future(self._start(programs))
        self._starts.add(starting)
        starting.add_done_callback(self._starts.discard)
        starting.add_done_callback(_retrieve)
        await asyncio.shield(starting)

    async def _start(self, programs: tuple[Program, ...]) -> None:
        pids = await self.supervisord.start(*programs)
        for program, pid in zip(programs, pids, strict=True):
            name = program.name
            self._programs[name], self.pids[name] = program, pid
            self._processes[name] = WatchedProcess(pid)
            self._backoffs.setdefault(name, Backoff())
            program.on_start(pid)
        self.on_change()

    async def ready(self, program: Program) -> None:
        """Wait until a program that was started is ready; one that ends before is restarted.

        Raises:
            StartFailed: it cannot be executed, exits by itself each time, or was not ready in time.
            SessionLost: it cannot be replaced, and was killed.
        """
        exits = 0
        while not await self._becomes_ready(program):
            end = await self._end(program)
            exits += end.status is not None
            if not program.restart or end.status in _CANNOT_EXECUTE or exits >= START_EXITS_MAX:
                name = program.name
                output = await self.supervisord.output_tail(name)
                if end.status is None:
                    raise _lost(name, output)
                raise StartFailed(name, end.why, output)
            await self._start_again(program)
        self._up(program)

    def ended_before_ready(self) -> dict[str, int]:
        """How often each program has ended that has not become ready since."""
        ends = {name: backoff.in_a_row for name, backoff in self._backoffs.items()}
        return {name: n for name, n in ends.items() if n and not self._backoffs[name].is_ready}

    async def _becomes_ready(self, program: Program) -> bool:
        """Wait for `program.ready`; False when the program ends before. Raises what that raises."""
        process = self._processes[program.name]
        if program.ready is None:
            return process.running
        ready = asyncio.ensure_future(program.ready())
        ended = asyncio.ensure_future(process.ended())
        waiting: tuple[asyncio.Future[Any], ...] = (ready, ended)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not process.running:
                return False  # whatever `ready` has returned or raised because of that
            ready.result()
            return True
        finally:
            ready.cancel()
            ended.cancel()
            ready.add_done_callback(_retrieve)

    def _up(self, program: Program) -> None:
        name, backoff = program.name, self._backoffs[program.name]
        backoff.ready(self.clock())
        program.on_up(self.pids[name])
        if program.restart:
            self.restarts.setdefault(name, 0)
        if backoff.in_a_row and program.restart:
            self.restarts[name] += 1
            if backoff.in_a_row <= REPORTED_RESTARTS or backoff.in_a_row.bit_count() == 1:
                self.emit(f"{name}.restarted", restarts=backoff.in_a_row)
        self.on_change()

    # -- programs that end by themselves

    def keep(self, program: Program) -> None:
        """From now on restart a ready program when it ends; or set `lost`, if it may not be."""
        if program.restart:
            self._watch(self._keep_running(program))
        else:
            ended = self._processes[program.name].ended()
            self._watch(self._lose_when_ended(program.name, ended))

    def _watch(self, watcher: Any) -> None:
        self._watchers.append(asyncio.ensure_future(watcher))

    async def _lose_when_ended(self, name: str, ended: Awaitable[object]) -> None:
        await ended
        output = await self.supervisord.output_tail(name)
        if not self.lost.done():
            self.lost.set_result(_lost(name, output))

    async def _keep_running(self, program: Program) -> None:
        while True:
            await self._processes[program.name].ended()
            end = await self._end(program)
            self.on_lost(program.name, end.why)
            await self._start_again(program)
            while not await self._becomes_ready_again(program):
                await self._end(program)
                await self._start_again(program)
            self._up(program)
            self.on_back(program.name)

    async def _becomes_ready_again(self, program: Program) -> bool:
        """The same as `_becomes_ready`, but a program that is not ready in time is killed."""
        try:
            async with asyncio.timeout(RESTART_READY_TIMEOUT_S):
                return await self._becomes_ready(program)
        except (SessionError, OSError, TimeoutError):
            await self._processes[program.name].stop(signal.SIGKILL, STOP_TIMEOUT_S)
            return False

    async def _end(self, program: Program) -> ProgramEnd:
        """Note the end of a program, and wait until supervisord has reaped it."""
        self._down(program)
        self.on_change()
        try:
            return await self.supervisord.end_of(program.name)
        except SessionError as error:  # a later call may succeed
            return ProgramEnd(None, f"it ended; {error}")

    def _down(self, program: Program) -> None:
        pid = self.pids.pop(program.name, None)
        if pid is not None:
            self._processes[program.name].close()
            program.on_down(pid)

    async def _start_again(self, program: Program) -> None:
        """Start a program that has ended, with back-off, until supervisord has started it."""
        backoff = self._backoffs[program.name]
        while True:
            await self.sleep(backoff.ended(self.clock()))
            with contextlib.suppress(SessionError):
                await self.start(program)
                return

    # -- the end

    def unwatch(self) -> None:
        """Expect programs to end from now on."""
        for watcher in self._watchers:
            watcher.cancel()

    def runs(self, name: str) -> bool:
        """Whether a program that was started has not ended."""
        return self._processes[name].running

    async def ended(self, name: str) -> None:
        """Wait until a program that was started has ended."""
        await self._processes[name].ended()

    async def retire(self, program: Program) -> ProgramEnd:
        """Stop a program that is not kept, so that it can be started again; how it has ended."""
        await self.stop(program.name)
        return await self._end(program)

    async def stop(self, *names: str) -> None:
        """Stop programs in parallel; those that do not run are ignored.

        Each gets its stop signal, has a bounded time, and gets SIGKILL.
        """
        if self._starts:
            await asyncio.wait(self._starts)
        programs = [self._programs[name] for name in names if name in self.pids]
        await asyncio.gather(
            *(
                self._processes[program.name].stop(
                    signal.Signals[f"SIG{program.stop_signal}"], STOP_TIMEOUT_S
                )
                for program in programs
            )
        )
        for program in programs:
            self._down(program)
