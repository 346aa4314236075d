"""Makes x11vnc report copied text from its start on.

It reports none until 15 s after its latest client has connected (`sel_waittime` in its source),
unless it has reported some before. A change of CUT_BUFFER0, the oldest of X's clipboards (ICCCM,
section 3), it reports at any time, once it watches that property.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import Xlib.Xatom

from worker.display import connection
from worker.errors import StartFailed
from worker.process.children import in_thread

if TYPE_CHECKING:
    from pathlib import Path

ENABLE_TIMEOUT_S: Final = 2.0
_RETRY_S: Final = 0.05
_BITS: Final = 8


async def enable_reports(display: str, authority: Path, reported: asyncio.Event) -> None:
    """Change CUT_BUFFER0 until `reported` is set, or for ENABLE_TIMEOUT_S.

    Raises:
        StartFailed: the display has ended.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ENABLE_TIMEOUT_S
    while not reported.is_set() and loop.time() < deadline:
        await in_thread(_clear_cut_buffer, display, authority)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_S):
                await reported.wait()


def _clear_cut_buffer(display: str, authority: Path) -> None:
    try:
        with connection.connect(display, authority) as server:
            root = server.screen().root
            root.change_property(Xlib.Xatom.CUT_BUFFER0, Xlib.Xatom.STRING, _BITS, b"")
            server.sync()
    except connection.Failed as error:
        raise StartFailed("x11vnc", f"display {display} does not answer: {error}") from error
