"""Removes ended tasks of the local runner, with their files, after the retention time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from worker.api.runners.background import BackgroundTasks, Rounds

if TYPE_CHECKING:
    from worker.api.runners.background import Loops
    from worker.api.runners.local.store import Store

    RemoveFolder = Callable[[], str | None]
    """Removes a task's folder; returns why it still exists."""
    Run = Callable[[str, RemoveFolder], Awaitable[str | None]]

NAME: Final = "retention"
DEFAULT_S: Final = 7 * 86400.0
PERIOD_S: Final = 60.0
_BATCH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Ended tasks are kept for `kept_s`; 0: without a limit.

    A task whose folder cannot be removed is kept, reported once, and tried again in each period.
    """

    kept_s: float
    report: Callable[..., None] = lambda *_, **__: None
    _reported: set[str] = field(default_factory=set)

    async def sweep(
        self,
        store: Store,
        folder_of: Callable[[str], RemoveFolder],
        loops: Loops,
        *,
        rounds: Rounds | None = None,
        run: Run | None = None,
    ) -> None:
        """Remove the tasks that are expired now, those of each account one after the other.

        It returns when they are removed, or after a period: an account whose tasks take longer is
        then left out until they are removed.

        Args:
            store: the tasks.
            folder_of: returns what removes a task's folder, for its id.
            loops: where a failure of one task is recorded.
            rounds: which accounts' tasks are being removed; default: none.
            run: calls a function in a thread, for an account; default: in any thread.
        """
        since = datetime.fromtimestamp(max(0, time.time() - self.kept_s), UTC)
        rounds = rounds or Rounds(BackgroundTasks(loops))
        for account in store.accounts_with_expired(since):
            run_own = asyncio.to_thread if run is None else partial(run, account)
            one = partial(self._remove, store, since, folder_of, run_own)
            rounds.begin(account, partial(self._sweep_account, store, account, since, one, loops))
        await rounds.wait(PERIOD_S)

    async def _sweep_account(
        self,
        store: Store,
        account: str,
        since: datetime,
        remove: Callable[[str], Awaitable[str | None]],
        loops: Loops,
    ) -> None:
        kept = 0
        while expired := store.expired(since, _BATCH, kept, account=account):
            removed = 0
            for task_id in expired:
                with loops.handling(NAME, task_id):
                    why = await remove(task_id)
                    if why is None:
                        removed += 1
                    else:
                        self._report(task_id, why)
            kept += len(expired) - removed

    async def _remove(
        self,
        store: Store,
        since: datetime,
        folder_of: Callable[[str], RemoveFolder],
        run: Callable[[RemoveFolder], Awaitable[str | None]],
        task_id: str,
    ) -> str | None:
        async with store.removal(task_id):
            # Meanwhile a client may have removed it, and have used its id again.
            if not store.is_expired(task_id, since):
                return None
            # Files first: a task that is still stored is handled again after a crash.
            why = await run(folder_of(task_id))
            if why is None:
                await store.remove([task_id])
            return why

    async def pause(self) -> None:
        """Return when the next sweep is to begin."""
        await asyncio.sleep(min(PERIOD_S, self.kept_s))

    def _report(self, task_id: str, why: str) -> None:
        if task_id not in self._reported:
            self._reported.add(task_id)
            self.report("task_folder.kept", task_id=task_id, why=why)
