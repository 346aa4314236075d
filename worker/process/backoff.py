"""When a program that has ended is started again. Pure: the caller passes the time.

At once after the first end, then after a delay that doubles with each further end, up to a maximum.
A program that was ready for long enough is healthy: its next end counts as the first one again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DELAY_FIRST_S: Final = 0.1  # after the second end in a row
DELAY_MAX_S: Final = 5.0  # also the least time between two restarts of a program that always ends
HEALTHY_S: Final = 10.0
_DOUBLINGS_MAX: Final = 16  # more would only make the number larger than the maximum


@dataclass(slots=True)
class Backoff:
    """The ends of one program; `now` is by a monotonic clock, in seconds.

    Attributes:
        in_a_row: how often it has ended since it was last healthy.
    """

    in_a_row: int = 0
    _ready_at: float | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the program has become ready since its last end."""
        return self._ready_at is not None

    def ready(self, now: float) -> None:
        """The program has become ready."""
        self._ready_at = now

    def ended(self, now: float) -> float:
        """The program has ended, or could not be started: how long to wait before a start."""
        if self._ready_at is not None and now - self._ready_at >= HEALTHY_S:
            self.in_a_row = 0
        self._ready_at = None
        self.in_a_row += 1
        if self.in_a_row == 1:
            return 0.0
        doublings = min(self.in_a_row - 2, _DOUBLINGS_MAX)
        return min(DELAY_MAX_S, DELAY_FIRST_S * (1 << doublings))
