"""What a stream server counts.

Counting is one addition; nothing is computed, and no library is imported, until `/metrics` is
requested (see `exposition`).
"""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.stream.messages import Facts

FIRST_FRAME_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All values at one moment; `first_frames` counts per bucket, the last for the rest."""

    state: str
    viewers: Mapping[str, int]
    admitted: Mapping[str, int]
    closes: Mapping[int, int]
    refusals: Mapping[int, int]
    sent_bytes: int
    first_frames: tuple[int, ...]
    first_frames_sum_s: float
    facts: Facts


class Counters:
    """The counters of one stream server; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._admitted: Counter[str] = Counter()
        self._closes: Counter[int] = Counter()
        self._refusals: Counter[int] = Counter()
        self._first_frames = [0] * (len(FIRST_FRAME_BUCKETS_S) + 1)
        self._first_frames_sum_s = 0.0

    def admitted(self, role: str) -> None:
        """Count an admitted viewer."""
        with self._lock:
            self._admitted[role] += 1

    def closed(self, code: int) -> None:
        """Count the end of a viewer's stream, by WebSocket close code."""
        with self._lock:
            self._closes[code] += 1

    def refused(self, status: int) -> None:
        """Count a refused request, by HTTP status."""
        with self._lock:
            self._refusals[status] += 1

    def first_frame(self, latency_s: float) -> None:
        """Count a viewer's first frame, this long after its TCP connection was accepted."""
        with self._lock:
            self._first_frames[bisect.bisect_left(FIRST_FRAME_BUCKETS_S, latency_s)] += 1
            self._first_frames_sum_s += latency_s

    def snapshot(
        self, *, state: str, viewers: Mapping[str, int], sent_bytes: int, facts: Facts
    ) -> Snapshot:
        """These counters together with values that are not counted here."""
        with self._lock:
            return Snapshot(
                state=state,
                viewers=viewers,
                admitted=dict(self._admitted),
                closes=dict(self._closes),
                refusals=dict(self._refusals),
                sent_bytes=sent_bytes,
                first_frames=tuple(self._first_frames),
                first_frames_sum_s=self._first_frames_sum_s,
                facts=facts,
            )
