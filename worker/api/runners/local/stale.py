"""Removes what killed workers of this machine have left: now, and regularly."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker import stale_sessions

if TYPE_CHECKING:
    from collections.abc import Callable

NAME: Final = "stale"
_PERIOD_S: Final = 60.0


async def remove_once(report: Callable[..., None]) -> None:
    """Remove what workers have left whose lock is free, in a thread.

    Each session is reported as the event `session.removed`.
    """
    parent = Path(tempfile.gettempdir())
    for fields in await asyncio.to_thread(lambda: list(stale_sessions.remove(parent))):
        report("session.removed", **fields)


async def pause() -> None:
    """Return when the next removal is to begin."""
    await asyncio.sleep(_PERIOD_S)
