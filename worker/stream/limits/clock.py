"""The time in which a viewer could have read and answered: it goes slower on a busy machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.attended.clock import TICK_S

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_MAX: Final = 2.0
_PRESSURE: Final = tuple(Path("/proc/pressure") / name for name in ("cpu", "io", "memory"))
_TOTAL: Final = b"total="
_MICROSECONDS: Final = 1_000_000


class ViewerClock:
    """A clock for the limits on how fast a viewer reads, and answers in the handshake.

    A viewer on the same machine runs no more than others do. Where the machine is busy, the clock
    goes slower, at worst `PATIENCE_MAX` times.

    Args:
        now: The time of the attended clock.
        patience: How many times slower it goes, given the time.
    """

    def __init__(self, now: float, patience: Callable[[float], float]) -> None:
        self._patience = patience
        self._last_s = self._now_s = now
        self._measured_at = now
        self._slower = patience(now)

    def __call__(self, now: float) -> float:
        """Return the time in seconds, given that of the attended clock."""
        if now - self._measured_at >= TICK_S:
            # Before it is used: what has just passed is what was measured.
            self._slower, self._measured_at = self._patience(now), now
        self._now_s += (now - self._last_s) / self._slower
        self._last_s = now
        return self._now_s


class BusyMachine:
    """How busy this machine is: processes that wait for a core, for a disk, or for memory.

    The average load reacts within a minute only, so what the kernel reports about stalls since the
    last call counts too (Documentation/accounting/psi.rst), where it does.
    """

    def __init__(self) -> None:
        self._stalled_s: tuple[float, ...] = ()
        self._at = 0.0

    def patience(self, now: float) -> float:
        """Return by how much time is to be stretched: 1 to `PATIENCE_MAX`."""
        return min(max(1.0, _load(), 1.0 + self._stalled_part(now)), PATIENCE_MAX)

    def _stalled_part(self, now: float) -> float:
        """Return the part of the time since the last call in which something had to wait."""
        before, since_s = self._stalled_s, now - self._at
        self._stalled_s, self._at = tuple(_stalled_s(path) for path in _PRESSURE), now
        if not before or since_s <= 0:
            return 0.0
        most_s = max(now - old for now, old in zip(self._stalled_s, before, strict=True))
        return max(0.0, most_s / since_s)


def _load() -> float:
    """Return the average load per core."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:  # /proc/loadavg cannot be read
        return 1.0


def _stalled_s(path: Path) -> float:
    """Return for how long at least one process had to wait so far; 0 where that is not known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        some = path.read_bytes().split(b"\n", 1)[0]
        return int(some.split(_TOTAL)[1]) / _MICROSECONDS
    return 0.0
