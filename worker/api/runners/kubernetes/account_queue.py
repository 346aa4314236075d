"""How many queued tasks an account has, read from the cluster at most every few seconds."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from worker.api.runners.kubernetes import job_spec
from worker.api.runners.protocol import QueueFull, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from worker.api.runners.kubernetes.namespace import Namespace
    from worker.api.runners.protocol import TaskRecord

    Records = Callable[[Sequence[tuple[Any, Any]]], Sequence[TaskRecord]]
    """Returns the records of Jobs with their pods, without those that cannot be read."""

_FRESH_S: Final = 5.0
_RETRY_AFTER_S: Final = 10


class AccountQueue:
    """Limits the queued tasks of each account.

    The number is exact for one replica of the API. Several replicas together can exceed it by what
    the others have created within 5 s.
    """

    def __init__(self, namespace: Namespace, limit: int, records: Records) -> None:
        self._namespace = namespace
        self._limit = limit
        self._records = records
        self._queued: Counter[str] = Counter()
        self._read_at: dict[str, float] = {}

    async def check(self, account: str) -> None:
        """Check that the account may have one more queued task.

        Raises:
            QueueFull: it has reached its limit.
            RunnerUnavailable: the cluster does not answer.
        """
        if time.monotonic() - self._read_at.get(account, -_FRESH_S) >= _FRESH_S:
            await self._read(account)
        if self._queued[account] >= self._limit:
            raise QueueFull(_RETRY_AFTER_S, account_max=self._limit)

    def add(self, account: str) -> None:
        """Count a task that was created."""
        self._queued[account] += 1

    async def _read(self, account: str) -> None:
        jobs = await self._namespace.list_jobs(f"{job_spec.ACCOUNT_LABEL}={account}")
        self._queued[account] = sum(
            each.status is TaskStatus.QUEUED for each in self._records(jobs)
        )
        self._read_at[account] = time.monotonic()
