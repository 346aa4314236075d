"""The controller's own x11vnc: there while somebody has control, and a moment longer.

The viewers' x11vnc takes no input and tells nobody what is copied; x11vnc can do that only for all
of its clients alike. So whoever takes control is served by a second one, which costs nothing while
nobody wants it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from worker.errors import SessionError
from worker.process.children import exited, in_thread
from worker.session.display_stack import CONTROL_PROGRAM
from worker.vnc import clipboard, shared_memory, x11vnc

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.events import Events
    from worker.session.display_stack import Stack

TELL_S: Final = 2.0
TOUCH_S: Final = 0.05
LINGER_S: Final = 10.0  # a controller that comes back, say after a reload, is served at once


@dataclass(slots=True, kw_only=True)
class Controller:
    """Starts and stops the controller's x11vnc as it is wanted.

    Attributes:
        stack: a running display stack.
        events: where starts and failures are told.
        answer: told after each `want` whether it can be connected to.
        linger_s: it is stopped when nobody has wanted it for so long.
    """

    stack: Stack
    events: Events
    answer: Callable[[bool], None]
    linger_s: float = LINGER_S
    _wanted: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _keeper: asyncio.Task[None] | None = None

    def want(self) -> None:
        """Somebody takes control."""
        self._wanted = True
        self._changed.set()
        if self._keeper is None:
            self._keeper = asyncio.ensure_future(self._keep())

    def leave(self) -> None:
        """Nobody has control any more."""
        self._wanted = False
        self._changed.set()

    async def close(self) -> None:
        """Start nothing any more, and stop what runs."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self.stack.stop(CONTROL_PROGRAM)

    async def _keep(self) -> None:
        while True:
            while not self._wanted:
                self._changed.clear()
                await self._changed.wait()
            try:
                await self._serve()
            except (SessionError, OSError, TimeoutError) as error:
                self.events.emit(f"{CONTROL_PROGRAM}.failed", why=str(error))
                self._wanted = False
                self.answer(False)
            await self.stack.stop(CONTROL_PROGRAM)

    async def _serve(self) -> None:
        """Start it, and return when it has died, or nobody has wanted it for a while."""
        pid = await self.stack.start_control()
        dead = asyncio.ensure_future(exited(pid))
        told = asyncio.Event()
        welcomed = functools.partial(shared_memory.let_go, pid)
        path = self.stack.x11vnc_control_socket
        primed = asyncio.ensure_future(x11vnc.prime(path, welcomed=welcomed, heard=told.set))
        try:
            await self._make_it_tell(told)
            self.events.emit(f"{CONTROL_PROGRAM}.started")
            while not dead.done():
                self._changed.clear()
                if self._wanted:
                    self.answer(True)
                if not await self._changed_before(dead):
                    return
        finally:
            dead.cancel()
            primed.cancel()

    async def _make_it_tell(self, told: asyncio.Event) -> None:
        """Have it tell at once what is copied, from now on.

        It tells nothing until 15 s after the latest client came (`sel_waittime` in its source),
        unless it has told something before; and a change of CUT_BUFFER0 it tells at any time, once
        it listens for that.
        """
        deadline = time.monotonic() + TELL_S
        while not told.is_set() and time.monotonic() < deadline:
            await in_thread(clipboard.touch, self.stack.display, self.stack.authority)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TOUCH_S):
                    await told.wait()

    async def _changed_before(self, dead: asyncio.Future[None]) -> bool:
        changed = asyncio.ensure_future(self._changed.wait())
        ends: tuple[asyncio.Future[Any], ...] = (dead, changed)
        timeout_s = None if self._wanted else self.linger_s
        try:
            await asyncio.wait(ends, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            return changed.done() and not dead.done()
        finally:
            changed.cancel()
