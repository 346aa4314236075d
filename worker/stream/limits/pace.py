"""Whether a viewer reads and sends fast enough. Pure: no clock, no sockets.

Times are in seconds of one clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

# Slow viewers. A few bytes now and then are not reading: megabytes would stay queued for hours.
STALLED_S: Final = 10.0
LEAST_BYTES: Final = 32 * 1024  # to be read in STALLED_S while data is pending

# Slow senders. A message that never ends would keep its memory and its viewer slot.
MESSAGE_S: Final = 10.0  # for a message to arrive, and so for each step of the handshake
LEAST_BYTES_PER_S: Final = 4096  # a message may take longer if it arrives at this rate

_SAMPLES: Final = 10


class Pace:
    """Whether a viewer reads what is pending for it fast enough.

    A viewer is too slow if it reads less than `least_bytes` in `window_s` while data is pending.

    Args:
        window_s: See above.
        least_bytes: See above.
    """

    def __init__(self, *, window_s: float = STALLED_S, least_bytes: int = LEAST_BYTES) -> None:
        self._window_s, self._sample_s = window_s, window_s / _SAMPLES
        self._least_bytes = least_bytes
        self._read_bytes = 0
        self._samples: deque[tuple[float, int]] = deque()  # when, and how much had been read

    def observe(self, now: float, *, pending: bool, read_bytes: int) -> None:
        """Note whether data is pending, and how much the viewer has read in total."""
        samples = self._samples
        if not pending:
            samples.clear()
            return
        self._read_bytes = read_bytes
        if not samples or now - samples[-1][0] >= self._sample_s:
            samples.append((now, read_bytes))
        while len(samples) > 1 and now - samples[1][0] >= self._window_s:
            samples.popleft()

    def too_slow(self, now: float) -> bool:
        """Whether too little was read, as of the last observation."""
        if not self._samples:
            return False
        since, read_before = self._samples[0]
        slow = self._read_bytes - read_before < self._least_bytes
        return slow and now - since >= self._window_s


class Arrival:
    """Whether a message, or a step of the handshake, takes too long to arrive."""

    def __init__(self, now: float) -> None:
        self._began_at, self._bytes_before = now, 0
        self._received_bytes = self._completed = 0
        self._partial = False

    def observe(self, now: float, *, received_bytes: int, completed: int, partial: bool) -> None:
        """Note the state of the input.

        Args:
            now: The time.
            received_bytes: How much has been received in total.
            completed: How many messages have arrived in total.
            partial: Whether the rest of one is to be received now.
        """
        self._received_bytes, self._partial = received_bytes, partial
        if not partial or completed != self._completed:
            self._completed = completed
            self._began_at, self._bytes_before = now, received_bytes

    def is_late(self, now: float) -> bool:
        """Whether the message under way should have arrived by now."""
        if not self._partial:
            return False
        arrived_bytes = self._received_bytes - self._bytes_before
        return now - self._began_at >= MESSAGE_S + arrived_bytes / LEAST_BYTES_PER_S
