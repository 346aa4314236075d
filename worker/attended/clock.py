"""A clock that stands still while its process does not run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

TICK_S: Final = 1.0  # the longest wait between two readings
GAP_MAX_S: Final = 1.25


class AttendedClock:
    """A monotonic clock that leaves out the time in which this process did not run.

    Others can only be judged by what they did while this process attended to them. Where it was
    stopped, or the machine suspended, or so busy that the process did not run, the clock goes on by
    at most `GAP_MAX_S`: deadlines are as much later. It is to be read every `TICK_S`.

    Args:
        monotonic: The time in seconds; `time.monotonic` leaves out the suspension of the machine
            itself, but not that of a virtual machine, nor SIGSTOP.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._last_s = self._now_s = monotonic()

    def __call__(self) -> float:
        """Return the time in seconds."""
        now_s = self._monotonic()
        self._now_s += min(max(0.0, now_s - self._last_s), GAP_MAX_S)
        self._last_s = now_s
        return self._now_s
