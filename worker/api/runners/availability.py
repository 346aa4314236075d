"""Whether what runs the tasks answers: said once when it is lost, and once when it is back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from worker.api.runners.protocol import RunnerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[..., None]


class Availability:
    """The engine's or the cluster's, as its runner finds it while it looks after its tasks."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lost = False

    @contextlib.contextmanager
    def tried(self) -> Iterator[None]:
        """Around a piece of work that is done again later, whatever comes of it now."""
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
