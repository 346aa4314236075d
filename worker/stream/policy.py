"""The pace of a viewer: whether it takes what waits for it fast enough."""

from __future__ import annotations

from collections import deque
from typing import Final

_SAMPLES: Final = 10


class Pace:
    """Too slow is who, while data waits all the time, takes less than so much in so long.

    A single byte now and then is not reading: it would keep megabytes waiting for ever.
    """

    def __init__(self, *, window_s: float, least_bytes: int) -> None:
        self._window_s = window_s
        self._least_bytes = least_bytes
        self._samples: deque[tuple[float, int]] = deque()  # when, and how much had been taken

    def too_slow(self, now: float, *, waiting: bool, taken_bytes: int) -> bool:
        """Look once more.

        Args:
            now: by time.monotonic().
            waiting: whether data waits.
            taken_bytes: how much the viewer has taken in all.
        """
        samples = self._samples
        if not waiting:
            samples.clear()
            return False
        if not samples or now - samples[-1][0] >= self._window_s / _SAMPLES:
            samples.append((now, taken_bytes))
        while len(samples) > 1 and now - samples[1][0] >= self._window_s:
            samples.popleft()
        since, taken_before = samples[0]
        return now - since >= self._window_s and taken_bytes - taken_before < self._least_bytes
