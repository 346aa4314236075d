"""The x11vnc for the viewer in control, started when it is needed.

x11vnc sets what a client may do for all of its clients alike, so the viewer in control is served
by a second x11vnc, which costs nothing while no viewer has control.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from worker.errors import SessionError
from worker.process.program import Backoff
from worker.vnc import clipboard
from worker.vnc.x11vnc import X11vnc

if TYPE_CHECKING:
    from worker.events import Events
    from worker.process.program import Program
    from worker.session.display_stack import DisplayStack

NAME: Final = "x11vnc_control"
LINGER_S: Final = (
    10.0  # a controller that reconnects, for example after a reload, is served at once
)


class ControlDisplay:
    """Starts and stops the x11vnc for control.

    Attributes:
        x11vnc: the process; `unix_socket` is where it listens.
    """

    def __init__(self, stack: DisplayStack, events: Events, *, linger_s: float = LINGER_S) -> None:
        """Start nothing yet.

        Args:
            stack: a running display stack.
            events: the event log.
            linger_s: it is stopped when no viewer has had control for this long.
        """
        self.x11vnc = X11vnc(
            name=NAME, unix_socket=stack.folder / "x11vnc_control.sock", control=True
        )
        self._stack = stack
        self._events = events
        self._linger_s = linger_s
        self._viewers: set[int] = set()
        self._changed = asyncio.Event()
        self._answers: list[asyncio.Future[bool]] = []
        self._backoff = Backoff()
        self._start_at = 0.0  # by time.monotonic(): not started before
        self._keeping: asyncio.Task[None] | None = None

    async def acquire(self, viewer: int) -> bool:
        """Start x11vnc unless it runs; returns when the viewer may connect.

        False if it failed, or has ended a moment ago and is not started again yet.
        """
        if time.monotonic() < self._start_at:
            return False
        self._viewers.add(viewer)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._changed.set()
        if self._keeping is None:
            self._keeping = asyncio.ensure_future(self._keep())
        return await answer

    def release(self, viewer: int) -> None:
        """The viewer has disconnected, or will not connect."""
        self._viewers.discard(viewer)
        self._changed.set()

    def release_all(self) -> None:
        """Every viewer has disconnected, since the stream server has ended."""
        self._viewers.clear()
        self._changed.set()

    async def close(self) -> None:
        """Start nothing any more, and stop what runs."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        self._answer(up=False)
        await self._stack.stop(NAME)

    def _answer(self, *, up: bool) -> None:
        for answer in self._answers:
            if not answer.done():
                answer.set_result(up)
        self._answers.clear()

    async def _keep(self) -> None:
        while True:
            while not self._viewers:
                self._changed.clear()
                await self._changed.wait()
            program = self.x11vnc.program(self._stack.display, self._stack.authority)
            try:
                stopped, why = await self._run(program), ""
            except (SessionError, OSError, TimeoutError) as error:
                stopped, why = False, str(error)
            keeper = self._stack.keeper
            end = await keeper.retire(program)
            if not stopped:
                self._failed(why or end.why)

    def _failed(self, why: str) -> None:
        """Start it again at once for the viewers that wait; or refuse them until it is time."""
        now = time.monotonic()
        delay_s = self._backoff.ended(now)
        self._events.emit(f"{NAME}.failed", why=why)
        if delay_s:
            self._start_at = now + delay_s
            self._viewers.clear()
            self._answer(up=False)

    async def _run(self, program: Program) -> bool:
        """Start x11vnc; True when no viewer has needed it for a while, False when it has ended."""
        keeper = self._stack.keeper
        self.x11vnc.reported.clear()
        await keeper.start(program)
        await keeper.ready(program)
        dead = asyncio.ensure_future(keeper.ended(NAME))
        try:
            await clipboard.enable_reports(
                self._stack.display, self._stack.authority, self.x11vnc.reported
            )
            self._backoff.ready(time.monotonic())
            self._events.emit(f"{NAME}.started")
            while not dead.done():
                self._changed.clear()
                if self._viewers:
                    self._answer(up=True)
                if not await self._changed_before(dead):
                    return not dead.done()
            return False
        finally:
            dead.cancel()

    async def _changed_before(self, dead: asyncio.Future[None]) -> bool:
        changed = asyncio.ensure_future(self._changed.wait())
        ends: tuple[asyncio.Future[Any], ...] = (dead, changed)
        timeout_s = None if self._viewers else self._linger_s
        try:
            await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            return changed.done() and not dead.done()
        finally:
            changed.cancel()
