"""A budget that refills with time: how much of something one viewer may cause."""

from __future__ import annotations

_EMPTY = 1e-9  # rounding: what refills until `ready_at` must not be a little less than nothing


class Rate:
    """Allows `per_s` units a second on average, and up to `burst` at once.

    A cost that is larger than what is left is allowed, and the rest is a debt: until it is paid
    nothing more is allowed. So a large cost is delayed, never refused for good.

    Times are in seconds of one monotonic clock.
    """

    def __init__(self, *, per_s: float, burst: float) -> None:
        self.per_s = per_s
        self._burst = self._left = burst
        self._at = 0.0

    def ready_at(self, now: float) -> float:
        """Return when the next cost is allowed: `now`, or later."""
        self._refill(now)
        return now if self._left > _EMPTY else now + (2 * _EMPTY - self._left) / self.per_s

    def is_ready(self, now: float) -> bool:
        """Whether a cost is allowed now."""
        return self.ready_at(now) <= now

    def take(self, now: float, cost: float = 1) -> None:
        """Note that something with this cost has passed."""
        self._refill(now)
        self._left -= cost

    def _refill(self, now: float) -> None:
        if now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self.per_s)
            self._at = now
