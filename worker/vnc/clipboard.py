"""CUT_BUFFER0, the oldest of X's clipboards (ICCCM, section 3): touched, to be noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import Xlib.Xatom

from worker.display import connection
from worker.errors import StartFailed

if TYPE_CHECKING:
    from pathlib import Path

_BITS: Final = 8


def touch(display: str, authority: Path) -> None:
    """Empty it, which every program that watches the root window's properties is told.

    Raises:
        StartFailed: the display is gone.
    """
    try:
        with connection.connect(display, authority) as server:
            root = server.screen().root
            root.change_property(Xlib.Xatom.CUT_BUFFER0, Xlib.Xatom.STRING, _BITS, b"")
            server.sync()
    except connection.Failed as error:
        raise StartFailed("x11vnc", f"display {display} is gone: {error}") from error
