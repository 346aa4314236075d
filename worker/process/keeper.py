"""Keeps the programs of the display stack running: start, readiness, restarts, end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from worker.errors import SessionError, SessionLost, StartFailed
from worker.process.children import exited

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from worker.process.program import Program
    from worker.process.supervisord import Supervisord

RESTARTS_MAX: Final = 10
RESTART_WINDOW_S: Final = 30.0
RESTART_TIMEOUT_S: Final = 5.0


@dataclass(slots=True, kw_only=True)
class ProgramKeeper:
    """The programs of one supervisord.

    Attributes:
        supervisord: runs them.
        emit: writes an event.
        on_change: called when `pids` or `restarts` has changed.
        lost: is set when a program that cannot be replaced has ended, or supervisord itself.
        pids: the process id of each program that was started.
        restarts: how often each program that is ready, and may be restarted, was restarted.
    """

    supervisord: Supervisord
    emit: Callable[..., None]
    on_change: Callable[[], None]
    lost: asyncio.Future[SessionLost]
    pids: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    _programs: dict[str, Program] = field(default_factory=dict)
    _watchers: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._watch(self._lose_when_ended("supervisord", self.supervisord.process.wait()))

    async def start(self, *programs: Program) -> None:
        """Start programs in one call, without waiting until they are ready.

        Raises:
            StartFailed: one cannot be executed.
        """
        pids = await self.supervisord.start(*programs)
        for program, pid in zip(programs, pids, strict=True):
            self._programs[program.name] = program
            self.pids[program.name] = pid
        self.on_change()

    async def ready(self, program: Program) -> None:
        """Wait until a program that was started is ready.

        Raises:
            StartFailed: it ended before, or was not ready in time.
        """
        name = program.name
        if not await self._becomes_ready(program):
            raise StartFailed(name, "it ended", await self.supervisord.output_tail(name))
        program.on_up(self.pids[name])

    def keep(self, program: Program) -> None:
        """From now on restart a ready program when it dies; or set `lost`, if it may not be."""
        if program.restart:
            self.restarts[program.name] = 0
            self._watch(self._restart_when_ended(program))
        else:
            ended = exited(self.pids[program.name])
            self._watch(self._lose_when_ended(program.name, ended))
        self.on_change()

    async def _becomes_ready(self, program: Program) -> bool:
        """Wait for `program.ready`; False when the program ends before. Raises what that raises."""
        if program.ready is None:
            return True
        ready = asyncio.ensure_future(program.ready())
        ended = asyncio.ensure_future(exited(self.pids[program.name]))
        waiting: tuple[asyncio.Future[Any], ...] = (ready, ended)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
            return ready.done()
        finally:
            ready.cancel()
            ended.cancel()

    # -- programs that end by themselves

    def _watch(self, watcher: Any) -> None:
        self._watchers.append(asyncio.ensure_future(watcher))

    async def _lose_when_ended(self, name: str, ended: Awaitable[object]) -> None:
        await ended
        output = await self.supervisord.output_tail(name)
        self._lose(f"{name} died" + (f": {output}" if output else ""))

    async def _restart_when_ended(self, program: Program) -> None:
        """See a program come back each time that it dies; give up when it dies too often."""
        name = program.name
        await exited(self.pids[name])
        deaths: list[float] = []
        while True:
            now = time.monotonic()
            deaths = [moment for moment in deaths if now - moment < RESTART_WINDOW_S] + [now]
            if len(deaths) > RESTARTS_MAX:
                output = await self.supervisord.output_tail(name)
                self._lose(f"{name} died {len(deaths)} times in a row: {output}")
                return
            program.on_down(self.pids[name])
            try:
                async with asyncio.timeout(RESTART_TIMEOUT_S):
                    self.pids[name] = await self.supervisord.replaced(name, self.pids[name])
                # No further limit than the program's own: a slow one need not end the session.
                if not await self._becomes_ready(program):
                    continue
            except (OSError, TimeoutError, SessionError) as error:
                why = str(error) or f"not within {RESTART_TIMEOUT_S:g} s"
                output = await self.supervisord.output_tail(name)
                self._lose(f"{name} died and did not come back: {why}; {output}")
                return
            program.on_up(self.pids[name])
            self.restarts[name] += 1
            self.on_change()
            self.emit(f"{name}.restarted", restarts=len(deaths))
            await exited(self.pids[name])

    def _lose(self, message: str) -> None:
        if not self.lost.done():
            self.lost.set_result(SessionLost(message))

    # -- the end

    def unwatch(self) -> None:
        """Expect programs to end from now on."""
        for watcher in self._watchers:
            watcher.cancel()

    async def stop(self, *names: str) -> None:
        """Stop programs in parallel; those that were never started are ignored."""
        started = [self._programs[name] for name in names if name in self.pids]
        await asyncio.gather(
            *(self.supervisord.stop(program, self.pids[program.name]) for program in started)
        )
        for program in started:
            program.on_down(self.pids[program.name])
