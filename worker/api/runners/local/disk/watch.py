"""Counts what tasks occupy on the disk, and ends those with which an account exceeds its limit.

    running     each counted PERIOD_S after the count before, up to what its account may have
    ended       counted once, when nothing of it runs any more; the count is stored with the task

After each count its account's sum is compared with the limit. If it exceeds it, the account's
largest running task is ended. If the account still grows meanwhile, that one is killed, and the
next one is ended, too. Tasks are counted in threads of their account's share; running tasks with
more than QUICK_NAMES, and those that have ended, in other threads each: a large tree delays neither
another account's count nor that of a small one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Protocol

from worker.api.runners.background import BackgroundTasks, Rounds
from worker.api.runners.local.disk import tree
from worker.api.runners.local.disk.usage import Usage
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
_ENDED: Final = "ended tasks of "
_INCOMPLETE_MAX: Final = 3
"""After so many incomplete counts in a row a task is ended."""
QUICK_NAMES: Final = 20_000
"""They are counted within about 0.1 s; files of a folder each within 1 s."""
_THREADS: Final = 8
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
        self._quick_threads = SharedThreads(_THREADS, 1, "disk-quick")
        self._threads = SharedThreads(_THREADS, 1, "disk")
        self._ended_threads = SharedThreads(_THREADS, 1, "disk-ended")
        self._background = BackgroundTasks(loops)
        self._rounds = Rounds(self._background)
        """One for each running task, and one for the ended tasks of each account."""
        self._growing: dict[str, list[UncountedTask]] = {}
        """By account: those of the latest sweep that may still grow."""
        self._excesses: dict[str, _Excess] = {}
        self._incomplete: Counter[str] = Counter()
        self._was_full = False

    async def open(self) -> None:
        """Count what an earlier process has not counted, as far as it takes little time.

        Until then, accounts seem to occupy less than they do.
        """
        await self.sweep()
        await self._rounds.wait(_FIRST_LIMIT_S)

    @property
    def _running(self) -> set[asyncio.Task[None]]:
        return self._rounds.running

    async def sweep(self) -> None:
        """Begin to count all tasks that are not being counted already."""
        tasks = sorted(self._store.uncounted(_ENDED_MAX), key=attrgetter("account"))
        task_ids = {task.task_id for task in tasks}
        self._accounts.keep(task_ids)
        self._incomplete = Counter(
            {each: count for each, count in self._incomplete.items() if each in task_ids}
        )
        self._growing = {}
        for account, group in groupby(tasks, key=attrgetter("account")):
            own = list(group)
            growing = self._growing[account] = [task for task in own if not task.is_final]
            for task in growing:
                self._rounds.begin(task.task_id, partial(self._count_all, [task]))
            if ended := [task for task in own if task.is_final]:
                self._rounds.begin(_ENDED + account, partial(self._count_all, ended))
        self._wake()

    async def pause(self) -> None:
        """Return when the next sweep is to begin."""
        await asyncio.sleep(PERIOD_S)

    async def close(self) -> None:
        """Stop counting."""
        await self._background.cancel()
        self._quick_threads.close()
        self._threads.close()
        self._ended_threads.close()

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

    async def _count_all(self, tasks: Sequence[UncountedTask]) -> None:
        for task in tasks:
            with self._loops.handling(NAME, task.task_id):
                await (self._count_ended(task) if task.is_final else self._count(task))
            self._enforce(task.account)

    async def _count(self, task: UncountedTask) -> None:
        names_max = self._names_max(task)
        usage = None
        if self._accounts.of(task).files <= QUICK_NAMES:
            usage = await self._measured(self._quick_threads, task, min(names_max, QUICK_NAMES))
        if usage is None or (names_max > QUICK_NAMES and usage.why_incomplete == tree.TOO_MANY):
            names_max = self._names_max(task)
            usage = await self._measured(self._threads, task, names_max)
        if task.account in self._excesses and not self._accounts.has_counted(task):
            self._excesses[task.account].size_bytes += usage.size_bytes  # it has not grown since
        self._accounts.set(task.account, task.task_id, usage)
        has_too_many = names_max < tree.ENTRIES_MAX and usage.why_incomplete == tree.TOO_MANY
        if usage.why_incomplete and not has_too_many:  # which is enough to enforce the limit
            self._incomplete[task.task_id] += 1
        else:
            del self._incomplete[task.task_id]

    async def _count_ended(self, task: UncountedTask) -> None:
        limit = self._accounts.limit
        names_max = tree.ENTRIES_MAX if limit.max_files is None else limit.max_files + 1
        usage = await self._measured(self._ended_threads, task, names_max)
        if usage.why_incomplete:  # there may be more: the account must not get more room by it
            usage += Usage(size_bytes=limit.max_bytes or 0, files=limit.max_files or 0)
        await self._store.save_usage(task.task_id, usage)
        self._accounts.set(task.account, task.task_id, None)

    def _names_max(self, task: UncountedTask) -> int:
        stored = self._store.occupied().get(task.account, Usage())
        return self._accounts.names_max(task, stored) or tree.ENTRIES_MAX

    async def _measured(self, threads: SharedThreads, task: UncountedTask, names_max: int) -> Usage:
        folder = self._workers.folder(task.task_id)
        return await threads.call(task.account, _measure, folder, task, entries_max=names_max)

    # -- the limit

    def _enforce(self, account: str) -> None:
        running = [task for task in self._growing.get(account, ()) if not task.has_ended]
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
