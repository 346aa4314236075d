"""Counts what tasks occupy on the disk, and ends those with which an account exceeds its limit.

    running     counted every PERIOD_S
    ended       counted once, when nothing of it runs any more; the count is stored with the task

If an account exceeds its limit, its largest running task is ended. If the account still grows
meanwhile, that one is killed, and the next one is ended, too. Each account is counted in a thread
of its own share, so a large tree of one does not delay the count of another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Protocol

from worker.api.runners.background import BackgroundTasks
from worker.api.runners.local.disk import tree
from worker.api.runners.local.disk.usage import Usage
from worker.api.runners.protocol import RunnerUnavailable
from worker.api.runners.threads import SharedThreads
from worker.process import descendants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.api.runners.background import Loops
    from worker.api.runners.local.disk.accounts import DiskAccounts, UncountedTask
    from worker.api.runners.local.task_folder import TaskFolder

NAME: Final = "disk"
PERIOD_S: Final = 2.0
GROWTH_MIN_BYTES: Final = 256 << 20
"""An account that grows by more, or by a quarter of its limit, after a task was to end."""
_GROWTH_PART: Final = 4
_ENDED_MAX: Final = 500
"""Ended tasks that are counted in one period."""
_INCOMPLETE_MAX: Final = 3
"""After so many incomplete counts in a row a task is ended."""
_THREADS: Final = 2
_FIRST_LIMIT_S: Final = 5.0


class Store(Protocol):
    """The stored tasks, as far as they are needed here."""

    def occupied(self) -> dict[str, Usage]:
        """What the counted tasks of each account occupy."""

    def uncounted(self, ended_max: int) -> Sequence[UncountedTask]:
        """The tasks that may still grow, and at most so many ended ones that are not counted."""

    async def save_usage(self, task_id: str, usage: Usage) -> None:
        """Store what an ended task occupies."""


class Workers(Protocol):
    """The workers, as far as they are needed here."""

    def folder(self, task_id: str) -> TaskFolder:
        """A task's folder."""

    def end_full(self, task_id: str, why: str) -> bool:
        """End a running task for this reason; False if it has no running worker."""

    def kill(self, task_id: str) -> None:
        """Kill a task's worker with all its processes."""

    def wake(self) -> None:
        """Start queued tasks now, if there is room."""


@dataclass(slots=True)
class _Excess:
    """An account that exceeds its limit: the tasks that are being ended, and its size then."""

    size_bytes: int
    task_ids: set[str]


class DiskWatch:
    """Counts the tasks of one state folder."""

    def __init__(
        self, store: Store, accounts: DiskAccounts, workers: Workers, loops: Loops
    ) -> None:
        self._store, self._accounts = store, accounts
        self._workers, self._loops = workers, loops
        self._threads = SharedThreads(_THREADS, 1, "disk")
        self._background = BackgroundTasks(loops)
        self._counting: set[str] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._excesses: dict[str, _Excess] = {}
        self._incomplete: Counter[str] = Counter()
        self._was_full = False

    async def open(self) -> None:
        """Count what an earlier process has not counted, as far as it takes little time.

        Until then, accounts seem to occupy less than they do.
        """
        await self.sweep()
        if self._running:
            await asyncio.wait(self._running, timeout=_FIRST_LIMIT_S)

    async def sweep(self) -> None:
        """Begin to count all accounts that are not being counted already."""
        tasks = sorted(self._store.uncounted(_ENDED_MAX), key=attrgetter("account"))
        task_ids = {task.task_id for task in tasks}
        self._accounts.keep(task_ids)
        self._incomplete = Counter(
            {each: count for each, count in self._incomplete.items() if each in task_ids}
        )
        for account, own in groupby(tasks, key=attrgetter("account")):
            if account not in self._counting:
                self._counting.add(account)
                running = self._background.start(self._count_account(account, list(own)))
                self._running.add(running)
                running.add_done_callback(self._running.discard)
        self._wake()

    async def pause(self) -> None:
        """Return when the next sweep is to begin."""
        await asyncio.sleep(PERIOD_S)

    async def close(self) -> None:
        """Stop counting."""
        await self._background.cancel()
        self._threads.close()

    def _wake(self) -> None:
        """Queued tasks of an account that was full may be started now."""
        was_full, self._was_full = (
            self._was_full,
            any(
                self._accounts.is_full(account, stored)
                for account, stored in self._store.occupied().items()
            ),
        )
        if was_full or self._was_full:
            self._workers.wake()

    async def _count_account(self, account: str, tasks: Sequence[UncountedTask]) -> None:
        try:
            for task in tasks:
                with self._loops.handling(NAME, task.task_id):
                    await self._count(task)
            with contextlib.suppress(RunnerUnavailable):  # `sweep` reports it
                self._enforce(account, [task for task in tasks if not task.has_ended])
        finally:
            self._counting.discard(account)

    async def _count(self, task: UncountedTask) -> None:
        limit = self._accounts.limit
        entries_max = tree.ENTRIES_MAX if limit.max_files is None else limit.max_files + 1
        folder = self._workers.folder(task.task_id)
        usage = await self._threads.call(
            task.account, _measure, folder, task, entries_max=entries_max
        )
        if not task.is_final:
            self._accounts.set(task.account, task.task_id, usage)
            if usage.why_incomplete:
                self._incomplete[task.task_id] += 1
            else:
                del self._incomplete[task.task_id]
            return
        if usage.why_incomplete:  # there may be more: the account must not get more room by it
            usage += Usage(size_bytes=limit.max_bytes or 0, files=limit.max_files or 0)
        await self._store.save_usage(task.task_id, usage)
        self._accounts.set(task.account, task.task_id, None)

    # -- the limit

    def _enforce(self, account: str, running: Sequence[UncountedTask]) -> None:
        for task in running:
            usage = self._accounts.of(task)
            if self._incomplete[task.task_id] >= _INCOMPLETE_MAX:
                why = f"what this task's files occupy cannot be counted: {usage.why_incomplete}"
                self._workers.end_full(task.task_id, why)
        stored = self._store.occupied().get(account, Usage())
        used = self._accounts.used(account, stored)
        why_exceeded = self._accounts.limit.exceeded(used)
        if why_exceeded is None:
            self._excesses.pop(account, None)
            return
        excess = self._excesses.setdefault(account, _Excess(used.size_bytes, set()))
        excess.task_ids &= {task.task_id for task in running}
        if excess.task_ids:
            if used.size_bytes - excess.size_bytes <= self._growth_max_bytes():
                return
            for task_id in excess.task_ids:
                self._workers.kill(task_id)
        excess.size_bytes = used.size_bytes
        self._end_largest(excess, running, why_exceeded)

    def _growth_max_bytes(self) -> int:
        return max(GROWTH_MIN_BYTES, (self._accounts.limit.max_bytes or 0) // _GROWTH_PART)

    def _end_largest(self, excess: _Excess, running: Sequence[UncountedTask], why: str) -> None:
        def size(task: UncountedTask) -> tuple[int, int]:
            usage = self._accounts.of(task)
            by_files = "WORKER_ACCOUNT_MAX_FILES" in why
            return (usage.files if by_files else usage.size_bytes), usage.files

        for task in sorted(running, key=size, reverse=True):
            if task.task_id not in excess.task_ids and self._workers.end_full(task.task_id, why):
                excess.task_ids.add(task.task_id)
                return


def _measure(folder: TaskFolder, task: UncountedTask, *, entries_max: int) -> Usage:
    """Count what a task occupies; blocks."""
    roots = [folder.path]
    if task.is_final:
        return tree.count(roots, entries_max=entries_max)
    if task.uid is None and (session := folder.session()) is not None:
        roots.append(session)  # otherwise it is in the task's folder
    pids = () if task.pid is None else descendants.of(task.pid)
    return tree.count(roots, pids, entries_max=entries_max)
