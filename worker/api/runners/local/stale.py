"""Removes what killed workers of this machine have left: now, and regularly."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from worker import stale_sessions
from worker.errors import SettingError
from worker.surroundings import temporary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PERIOD_S: Final = 60.0


async def run(report: Callable[..., None]) -> None:
    """Remove it until cancelled; each session is reported as the event `session.removed`."""
    while True:
        try:
            parent = temporary.parent(os.environ)
        except SettingError:
            parent = None  # no worker can start there either; its start reports it
        if parent is not None:
            await remove_once(parent, report)
        await asyncio.sleep(PERIOD_S)


async def remove_once(parent: Path, report: Callable[..., None]) -> None:
    """Remove what workers have left below `parent` whose lock is free, in a thread."""
    for fields in await asyncio.to_thread(lambda: list(stale_sessions.remove(parent))):
        report("session.removed", **fields)
