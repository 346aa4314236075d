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

NAME: Final = "stale"
_PERIOD_S: Final = 60.0


async def remove(report: Callable[..., None]) -> None:
    """Remove what workers have left in the folder for temporary files."""
    try:
        parent = temporary.parent(os.environ)
    except SettingError:
        return  # no worker can start there either; its start reports it
    await remove_once(parent, report)


async def remove_once(parent: Path, report: Callable[..., None]) -> None:
    """Remove what workers have left below `parent` whose lock is free, in a thread.

    Each session is reported as the event `session.removed`.
    """
    for fields in await asyncio.to_thread(lambda: list(stale_sessions.remove(parent))):
        report("session.removed", **fields)


async def pause() -> None:
    """Return when the next removal is to begin."""
    await asyncio.sleep(_PERIOD_S)
