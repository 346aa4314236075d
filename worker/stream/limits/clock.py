"""The time that a viewer's thread has attended to its viewer."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

GAP_MAX_S: Final = 1.25  # a thread waits for at most a second between two looks at the clock
PATIENCE_MAX: Final = 2.0


class AttendedClock:
    """A monotonic clock that leaves out the time in which this process did not run.

    A viewer can only be judged by what it did while it was attended to. Where this process was
    stopped, or the machine suspended, or so busy that the thread did not run, the clock goes on by
    at most `GAP_MAX_S`: deadlines are as much later.

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
        self._now_s += min(now_s - self._last_s, GAP_MAX_S)
        self._last_s = now_s
        return self._now_s


def patience() -> float:
    """By how much deadlines are longer on a busy machine: 1 to `PATIENCE_MAX`.

    A viewer on the same machine does not run either. It is the load per core: processes that wait
    for a core or for a disk count.
    """
    try:
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:  # /proc/loadavg cannot be read
        return 1.0
    return min(max(1.0, load), PATIENCE_MAX)
