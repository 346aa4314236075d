"""asyncio by the attended clock: timeouts, timers and sleeps leave out the same time."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

from worker.attended.clock import TICK_S, AttendedClock

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    T = TypeVar("T")


class _Selector(selectors.EpollSelector):
    """Returns every second while a timer is set, so that the clock is read."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout if timeout is None else min(timeout, TICK_S))


class AttendedEventLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while its process does not run."""

    def __init__(self) -> None:
        self._clock = AttendedClock()
        super().__init__(_Selector())

    def time(self) -> float:
        """Return the time in seconds, by which timers are set and due."""
        return self._clock()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, as asyncio.run does."""
    with asyncio.Runner(loop_factory=AttendedEventLoop) as runner:
        return runner.run(main)
