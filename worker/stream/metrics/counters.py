"""What one stream server counts, and what it knows when somebody asks for its numbers.

Counting is an addition each; nothing is computed, and no library loaded, until `/metrics` is asked
for (see `exposition`).
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FIRST_FRAME_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FACTS_AGE_S: Final = 1.0
FACTS_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What only the session knows.

    Attributes:
        stages_ms: when each stage of the task was over, since the worker's start.
        restarts: how often each program was restarted.
        pids: each running program's process id.
    """

    stages_ms: Mapping[str, int] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    pids: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """All numbers at one moment; the histogram's counts are per bucket, the last for the rest."""

    state: str
    viewers: Mapping[str, int]
    admitted: Mapping[str, int]
    closes: Mapping[int, int]
    refusals: Mapping[int, int]
    sent_bytes: int
    first_frames: tuple[int, ...]
    first_frames_sum_s: float
    facts: Facts


class Counts:
    """What has happened so far; for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._admitted: Counter[str] = Counter()
        self._closes: Counter[int] = Counter()
        self._refusals: Counter[int] = Counter()
        self._first_frames = [0] * (len(FIRST_FRAME_BUCKETS_S) + 1)
        self._first_frames_sum_s = 0.0

    def admitted(self, role: str) -> None:
        """A viewer was let in."""
        with self._lock:
            self._admitted[role] += 1

    def closed(self, code: int) -> None:
        """A viewer's stream ended."""
        with self._lock:
            self._closes[code] += 1

    def refused(self, status: int) -> None:
        """A request was refused."""
        with self._lock:
            self._refusals[status] += 1

    def first_frame(self, waited_s: float) -> None:
        """A viewer's first frame began to leave, so long after it knocked."""
        with self._lock:
            self._first_frames[bisect.bisect_left(FIRST_FRAME_BUCKETS_S, waited_s)] += 1
            self._first_frames_sum_s += waited_s

    def numbers(
        self, *, state: str, viewers: Mapping[str, int], sent_bytes: int, facts: Facts
    ) -> Numbers:
        """These counts and what the server knows."""
        with self._lock:
            return Numbers(
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


class SessionFacts:
    """Asks the session for its facts, at most once a second however many want to know."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._changed = threading.Condition()
        self._facts = Facts()
        self._told_at = -FACTS_AGE_S

    def arrived(self, told: Mapping[str, Any]) -> None:
        """The session has answered."""
        with self._changed:
            self._facts = Facts(**{name: told[name] for name in Facts.__slots__})
            self._told_at = time.monotonic()
            self._changed.notify_all()

    def get(self) -> Facts:
        """The facts, at most a second old; the last known ones if the session is too busy."""
        with self._changed:
            asked_at = time.monotonic()
            if asked_at - self._told_at > FACTS_AGE_S:
                self._ask()
                self._changed.wait_for(lambda: self._told_at >= asked_at, FACTS_TIMEOUT_S)
            return self._facts
