"""System V shared memory of x11vnc: a killed x11vnc does not remove its segments.

They would outlive the session, 10 MB each time, until the host's limit of 4096 segments is reached.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_SEGMENTS: Final = Path("/proc/sysvipc/shm")  # proc_pid(5), sysvipc(7)
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_IPC_RMID: Final = 0


def mark_for_removal(creator_pid: int) -> None:
    """Have the kernel remove each private segment that a process has created, after its last use.

    Processes that use it now are not affected (shmctl(2), IPC_RMID).
    """
    try:
        header, *lines = _SEGMENTS.read_text().splitlines()
    except (OSError, ValueError):
        return  # a kernel without it has no such segments
    names = header.split()
    for line in lines:
        segment = dict(zip(names, map(int, line.split()), strict=False))
        if (
            segment["cpid"] == creator_pid
            and not segment["key"]
            and segment["cuid"] == os.geteuid()
        ):
            _LIBC.shmctl(segment["shmid"], _IPC_RMID, None)  # fails when it is gone already
