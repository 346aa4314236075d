"""The window manager: makes every window fill the screen.

Without one, Chromium's window is 1919×1079 with a black edge; matchbox without title bars makes
it 1920×1080.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

import Xlib.X

from worker.attended.clock import AttendedClock
from worker.display import connection
from worker.errors import StartFailed

if TYPE_CHECKING:
    from pathlib import Path

READY_TIMEOUT_S: Final = 10.0
_SLICE_S: Final = 0.05


def command(display: str) -> list[str]:
    """The command line; the cookie is passed in XAUTHORITY."""
    return ["matchbox-window-manager", "-display", display, "-use_titlebar", "no"]


def ready(display: str, authority: Path, *, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Wait until a window manager has announced itself (EWMH, _NET_SUPPORTING_WM_CHECK).

    Raises:
        StartFailed: it did not in time, or the display does not answer.
    """
    clock = AttendedClock()
    deadline = clock() + timeout_s
    try:
        with connection.connect(display, authority) as server:
            root = server.screen().root
            root.change_attributes(event_mask=Xlib.X.PropertyChangeMask)
            announced = server.intern_atom("_NET_SUPPORTING_WM_CHECK")
            while root.get_full_property(announced, Xlib.X.AnyPropertyType) is None:
                if clock() > deadline:
                    raise StartFailed("window_manager", "it did not announce itself in time")
                select.select([server.fileno()], [], [], _SLICE_S)
                while server.pending_events():
                    server.next_event()
    except connection.Failed as error:
        raise StartFailed(
            "window_manager", f"display {display} does not answer: {error}"
        ) from error
