"""Leases of callbacks, kept in memory: for runners of which only one process runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from worker.api.runners.protocol import CALLBACK_LEASE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class CallbackLeases:
    """Which tasks' callbacks are leased; a lease expires after CALLBACK_LEASE_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def take(self, task_ids: Iterable[str]) -> set[str]:
        """Lease those that are not leased; returns them."""
        now = self._clock()
        taken = {each for each in task_ids if self._until.get(each, now) <= now}
        self._until.update(dict.fromkeys(taken, now + CALLBACK_LEASE_S))
        return taken

    def release(self, *task_ids: str) -> None:
        """End leases."""
        for task_id in task_ids:
            self._until.pop(task_id, None)
