"""What each account's tasks occupy: the limit of new tasks, and of those that are not counted yet.

What an ended task occupies is stored with it, once nothing of it runs any more. What the others
occupy, as of their latest count, is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.api.runners.local.disk.usage import Usage, UsageLimit
from worker.api.runners.protocol import AccountFull

if TYPE_CHECKING:
    from collections.abc import Collection

_RETRY_AFTER_S: Final = 60
NAMES_MIN: Final = 10_000
"""So many names of a task are always counted, within 50 ms."""
_NOTHING: Final = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class UncountedTask:
    """A started task for which no final count is stored.

    Attributes:
        pid: its worker's, if that may exist.
        uid: its own user, until it is cleaned up.
        has_ended: whether its end is stored; its worker may still be cleaning up.
    """

    account: str
    task_id: str
    pid: int | None
    uid: int | None
    has_ended: bool

    @property
    def is_final(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.has_ended and self.pid is None and self.uid is None


class DiskAccounts:
    """Compares what accounts occupy with the limit; changed in one thread, read in any."""

    def __init__(self, limit: UsageLimit | None = None) -> None:
        self.limit = limit or UsageLimit()
        self._tasks: dict[str, dict[str, Usage]] = {}
        self._totals: dict[str, Usage] = {}

    def set(self, account: str, task_id: str, usage: Usage | None) -> None:
        """Note the latest count of a task; None: it is stored, or the task was removed."""
        tasks = self._tasks.setdefault(account, {})
        if usage is None:
            tasks.pop(task_id, None)
        else:
            tasks[task_id] = usage
        self._sum(account)

    def keep(self, task_ids: Collection[str]) -> None:
        """Forget all tasks but these."""
        for account, tasks in list(self._tasks.items()):
            for task_id in [each for each in tasks if each not in task_ids]:
                del tasks[task_id]
            self._sum(account)

    def has_counted(self, task: UncountedTask) -> bool:
        """Whether a task was counted before."""
        return task.task_id in self._tasks.get(task.account, {})

    def of(self, task: UncountedTask) -> Usage:
        """What a task occupied when it was counted last."""
        return self._tasks.get(task.account, {}).get(task.task_id, _NOTHING)

    def names_max(self, task: UncountedTask, stored: Usage) -> int | None:
        """How many names of a task are to be counted; None: without a limit of files.

        With more, its account exceeds the limit. But so many that the largest task is found.

        Args:
            task: that is to be counted.
            stored: the sum of what is stored with the account's ended tasks.
        """
        if self.limit.max_files is None:
            return None
        others = [
            usage.files
            for task_id, usage in self._tasks.get(task.account, {}).items()
            if task_id != task.task_id
        ]
        left = self.limit.max_files - stored.files - sum(others)
        return max([left, NAMES_MIN, *others]) + 1

    def used(self, account: str, stored: Usage) -> Usage:
        """What an account occupies.

        Args:
            account: its name.
            stored: the sum of what is stored with its ended tasks.
        """
        return stored + self._totals.get(account, _NOTHING)

    def is_full(self, account: str, stored: Usage) -> bool:
        """Whether no further task of the account may be started."""
        return self.limit.reached(self.used(account, stored)) is not None

    def check(self, account: str, stored: Usage) -> None:
        """Check that one more task may be queued.

        Raises:
            AccountFull: the account has reached a limit.
        """
        why = self.limit.reached(self.used(account, stored))
        if why is not None:
            raise AccountFull(why, _RETRY_AFTER_S)

    def _sum(self, account: str) -> None:
        tasks = self._tasks[account]
        if not tasks:
            del self._tasks[account]
            self._totals.pop(account, None)
            return
        self._totals[account] = sum(tasks.values(), start=_NOTHING)
