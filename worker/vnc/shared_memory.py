"""System V shared memory of x11vnc: a killed x11vnc does not remove its segments.

They would outlive the session, 10 MB each time, until the host's limit of 4096 segments is reached.
"""

from __future__ import annotations

import os

from worker import linux


def mark_for_removal(creator_pid: int) -> None:
    """Have the kernel remove each private segment that a process has created, after its last use.

    Processes that use it now are not affected (shmctl(2), IPC_RMID).
    """
    for segment in linux.shared_memory_segments():
        private = not segment["key"]
        if private and segment["cpid"] == creator_pid and segment["cuid"] == os.geteuid():
            linux.remove_segment(segment["shmid"])


def remove_unused(creator_pid: int, uid: int) -> None:
    """Remove each private segment that an ended process has created, and that no process uses.

    Args:
        creator_pid: an x11vnc of a session whose worker was killed.
        uid: the segment's creator.
    """
    if not linux.has_ended(creator_pid):
        return
    for segment in linux.shared_memory_segments():
        unused = not segment["key"] and not segment["nattch"]
        if unused and segment["cpid"] == creator_pid and segment["cuid"] == uid:
            linux.remove_segment(segment["shmid"])
