"""What the local runner forgets: ended tasks that were kept for long enough, files and all."""

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

    from worker.api.runners.local.store import Store

DEFAULT_S: Final = 7 * 86400.0
_LOOK_S: Final = 60.0
_AT_ONCE: Final = 100
_OWNER_ALL: Final = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Ended tasks are kept for `kept_s`; 0: for ever."""

    kept_s: float

    async def run(self, store: Store, folder_of: Callable[[str], Path]) -> None:
        """Remove what is old, now and again, until cancelled.

        Args:
            store: the tasks.
            folder_of: a task's folder from its id.
        """
        while self.kept_s:
            while expired := store.expired(self._since(), _AT_ONCE):
                for task_id in expired:
                    # Files first: a task that is still known is looked at again after a crash.
                    await asyncio.to_thread(_remove, folder_of(task_id))
                await store.remove(expired)
            await asyncio.sleep(min(_LOOK_S, self.kept_s))

    def _since(self) -> datetime:
        return datetime.fromtimestamp(max(0, time.time() - self.kept_s), UTC)


def _remove(folder: Path) -> None:
    """Remove a tree, also where a task has taken its folders' permissions away."""
    for root, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(root, name)
            if not path.is_symlink():
                with contextlib.suppress(OSError):  # what cannot be removed must not keep the rest
                    path.chmod(_OWNER_ALL)
    shutil.rmtree(folder, ignore_errors=True)
