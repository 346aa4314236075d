"""Whether the disk has room for a task."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_ROOM_BYTES: Final = 128 << 10


def has_room(folder: Path) -> bool:
    """Whether a folder can be written, and has room for what a task's start creates."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return False
    if state.f_flag & os.ST_RDONLY:
        return False
    has_files = not state.f_files or state.f_favail > 0
    return has_files and state.f_bavail * state.f_frsize >= _ROOM_BYTES
