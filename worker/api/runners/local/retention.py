"""Removes ended tasks of the local runner, with their files, after the retention time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.api.runners.background import Loops
    from worker.api.runners.local.store import Store

NAME: Final = "retention"
DEFAULT_S: Final = 7 * 86400.0
_PERIOD_S: Final = 60.0
_BATCH: Final = 100
_OWNER_ALL: Final = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Ended tasks are kept for `kept_s`; 0: without a limit."""

    kept_s: float

    async def sweep(self, store: Store, folder_of: Callable[[str], Path], loops: Loops) -> None:
        """Remove expired tasks.

        Args:
            store: the tasks.
            folder_of: returns a task's folder for its id.
            loops: where a failure of one task is recorded.
        """
        while expired := store.expired(self._since(), _BATCH):
            removed = []
            for task_id in expired:
                with loops.handling(NAME, task_id):
                    # Files first: a task that is still stored is handled again after a crash.
                    await asyncio.to_thread(_remove, folder_of(task_id))
                    removed.append(task_id)
            if not removed:
                return
            await store.remove(removed)

    async def pause(self) -> None:
        """Return when the next sweep is to begin."""
        await asyncio.sleep(min(_PERIOD_S, self.kept_s))

    def _since(self) -> datetime:
        return datetime.fromtimestamp(max(0, time.time() - self.kept_s), UTC)


def _remove(folder: Path) -> None:
    """Remove a tree, even if the task removed its folders' permissions."""
    for root, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(root, name)
            if not path.is_symlink():
                with contextlib.suppress(OSError):  # the other files are removed all the same
                    path.chmod(_OWNER_ALL)
    shutil.rmtree(folder, ignore_errors=True)
