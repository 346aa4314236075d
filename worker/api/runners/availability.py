"""Reports when the engine or cluster stops answering, and when it answers again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from worker.api.runners.protocol import RunnerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[..., None]


class Availability:
    """Emits `runner.lost` and `runner.found`, each once per change."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lost = False

    @contextlib.contextmanager
    def track(self) -> Iterator[None]:
        """Around work that is repeated later; RunnerUnavailable is reported, not raised."""
        try:
            yield
        except RunnerUnavailable as error:
            if not self._lost:
                self._report("runner.lost", why=str(error))
            self._lost = True
        else:
            if self._lost:
                self._report("runner.found")
            self._lost = False
