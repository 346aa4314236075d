"""The callbacks that this process has leased: few per account, so that none waits for another's."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners.protocol import CALLBACK_LEASE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from worker.api.runners.protocol import TaskRecord

PER_ACCOUNT_MAX: Final = 16
"""So few that all attempts of each fit into its lease, even if every attempt takes 10 s."""
LEASED_MAX: Final = 512
"""In total; an account that has no lease gets one beyond it."""
_READ_LIMIT_S: Final = 0.5


class CallbackLeases:
    """Which tasks' callbacks are leased; a lease expires after CALLBACK_LEASE_S."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        per_account: int = PER_ACCOUNT_MAX,
        limit: int = LEASED_MAX,
    ) -> None:
        self._clock = clock
        self._per_account = per_account
        self._limit = limit
        self._leases: dict[str, tuple[str, float]] = {}

    def take(self, pending: Iterable[tuple[str, str]]) -> list[str]:
        """Lease callbacks that are not leased, as far as the limits allow; the tasks' ids.

        Args:
            pending: account and task id of each, oldest first.
        """
        now = self._clock()
        self._leases = {each: lease for each, lease in self._leases.items() if lease[1] > now}
        counts = Counter(account for account, _ in self._leases.values())
        taken: list[str] = []
        for account, task_id in _one_of_each_account_after_another(pending):
            has_room = len(self._leases) < self._limit or not counts[account]
            if task_id not in self._leases and has_room and counts[account] < self._per_account:
                counts[account] += 1
                self._leases[task_id] = (account, now + CALLBACK_LEASE_S)
                taken.append(task_id)
        return taken

    def release(self, *task_ids: str) -> None:
        """End leases."""
        for task_id in task_ids:
            self._leases.pop(task_id, None)

    def renew(self, *task_ids: str) -> None:
        """Let leases begin now."""
        until = self._clock() + CALLBACK_LEASE_S
        for task_id in task_ids:
            if task_id in self._leases:
                self._leases[task_id] = (self._leases[task_id][0], until)


class LeaseReads:
    """Reads the records of leased callbacks; those that take long delay no other one."""

    def __init__(self) -> None:
        self._reads: dict[str, asyncio.Task[TaskRecord | None]] = {}

    @property
    def running(self) -> bool:
        """Whether a record is still being read."""
        return bool(self._reads)

    def begin(
        self, task_id: str, read: Callable[[], Coroutine[Any, Any, TaskRecord | None]]
    ) -> None:
        """Begin to read the record of a task, unless it is being read."""
        if task_id not in self._reads:
            self._reads[task_id] = asyncio.ensure_future(read())

    async def ended(self) -> tuple[Mapping[str, TaskRecord | None], Mapping[str, BaseException]]:
        """Wait a short time; the records that were read since, and the failures, by task."""
        if self._reads:
            await asyncio.wait(self._reads.values(), timeout=_READ_LIMIT_S)
        done = {task_id: read for task_id, read in self._reads.items() if read.done()}
        read_since, failures = {}, {}
        for task_id, read in done.items():
            del self._reads[task_id]
            error = asyncio.CancelledError() if read.cancelled() else read.exception()
            if error is None:
                read_since[task_id] = read.result()
            else:
                failures[task_id] = error
        return read_since, failures

    async def cancel(self) -> None:
        """End."""
        for read in self._reads.values():
            read.cancel()
        await asyncio.gather(*self._reads.values(), return_exceptions=True)


def _one_of_each_account_after_another(
    pending: Iterable[tuple[str, str]],
) -> list[tuple[str, str]]:
    """The oldest of each account, then the second of each, and so on."""
    places: Counter[str] = Counter()
    ordered = []
    for account, task_id in pending:
        ordered.append((places[account], account, task_id))
        places[account] += 1
    ordered.sort(key=lambda each: each[0])
    return [(account, task_id) for _, account, task_id in ordered]
