"""Reports when what runs the tasks stops working, and when it works again."""

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
        self._why: str | None = None

    @property
    def why_lost(self) -> str | None:
        """Why the runner does not work; None while it works."""
        return self._why

    def lost(self, why: str) -> None:
        """Record that it does not work."""
        if self._why is None:
            self._report("runner.lost", why=why)
        self._why = why

    def found(self) -> None:
        """Record that it works."""
        if self._why is not None:
            self._report("runner.found")
        self._why = None

    @contextlib.contextmanager
    def track(self) -> Iterator[None]:
        """Around work that is repeated later; RunnerUnavailable is reported, not raised."""
        try:
            yield
        except RunnerUnavailable as error:
            self.lost(str(error))
        else:
            self.found()
