"""The plan: how often and how long each line is measured; and the progress so far."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.remote_task import SHOP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BAR_CELLS = 24
_FULL, _EMPTY = "█", "░"


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is measured, and what was skipped.

    Attributes:
        pairs: measurements for each line.
        window_s: the duration of one measurement of a rate.
        workers_at_once: for line j.
        viewer_counts: for line g.
        parts: the number of groups of lines.
        stages: the last worker's `stages_ms`, for the picture.
        skipped: the reason for each comparison that was not measured.
    """

    pairs: int = 7
    window_s: float = 3.0
    workers_at_once: int = 10
    viewer_counts: tuple[int, ...] = (0, 1, 4, 16)
    parts: int = 1
    still_page: Path = SHOP
    stages: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    _parts_done: int = 0
    _began_s: float = field(default_factory=time.monotonic)

    def rounds(self, what: str, *, at_least: int = 1) -> Iterator[int]:
        """Count the rounds of one line and print the progress."""
        count = max(self.pairs, at_least)
        for number in range(count):
            self._show(what, number, count)
            yield number
        self.next_part()
        self._show(what, 0, count)

    def next_part(self) -> None:
        """Mark one group of lines as done."""
        self._parts_done += 1

    def skip(self, reason: str) -> None:
        """Note a comparison that is not measured."""
        if reason not in self.skipped:
            self.skipped.append(reason)

    def _show(self, what: str, number: int, count: int) -> None:
        share = min(1.0, (self._parts_done + number / count) / self.parts)
        cells = round(share * BAR_CELLS)
        bar = _FULL * cells + _EMPTY * (BAR_CELLS - cells)
        spent_s = time.monotonic() - self._began_s
        text = f"{bar} {share:4.0%}  {spent_s:4.0f} s  {what}"
        if sys.stderr.isatty():
            print(f"\r{text:<79}", end="\n" if share == 1 else "", file=sys.stderr, flush=True)
        elif number == 0:
            print(text, file=sys.stderr, flush=True)
