"""System V IPC namespaces: what a test's processes leave, whatever their environments contain."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from pathlib import Path

_ID, _CREATOR, _ATTACHED = 1, 4, 6  # columns of /proc/sysvipc/shm, proc_sysvipc_shm(5)
_CLONE_NEWIPC = 0x0800_0000  # linux/sched.h
_PROC = Path("/proc")


class IpcNamespace:
    """The System V IPC objects of one test, and the processes that can access them.

    All that a thread starts after it has entered a namespace is in it, except a local task that
    the API isolates. Chromium overwrites the environment of its renderers, but not this.
    """

    def __init__(self) -> None:
        """Enter a new namespace; processes that are not root's stay in the one of the host."""
        self.own = os.geteuid() == 0
        if self.own:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(_CLONE_NEWIPC):
                raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWIPC)")

    def processes(self) -> list[int]:
        """The other processes in it; empty in the namespace of the host."""
        if not self.own:
            return []
        namespace = (_PROC / "thread-self/ns/ipc").readlink()
        found = []
        for entry in _PROC.iterdir():
            with contextlib.suppress(OSError):  # it has ended
                if entry.name.isdigit() and (entry / "ns/ipc").readlink() == namespace:
                    found.append(int(entry.name))
        return [pid for pid in found if pid != os.getpid() and _has_memory(pid)]

    def abandoned_segments(self) -> list[str]:
        """Segments that no process uses and whose creator has ended; empty in the host's."""
        if not self.own:
            return []
        lines = (_PROC / "sysvipc/shm").read_text().splitlines()[1:]
        rows = [[int(field) for field in line.split()] for line in lines]
        return [
            f"segment {row[_ID]} of process {row[_CREATOR]}"
            for row in rows
            if row[_ATTACHED] == 0 and not (_PROC / str(row[_CREATOR])).exists()
        ]

    def leftovers(self) -> list[str]:
        """Descriptions of the processes and segments that are left."""
        left = [f"process {pid}: {_command_line(pid)}" for pid in self.processes()]
        return left + self.abandoned_segments()


def _has_memory(pid: int) -> bool:
    """Whether a process still runs: its memory is the first that it gives back when it ends."""
    try:
        return not (_PROC / str(pid) / "statm").read_text().startswith("0 ")
    except OSError:
        return False


def _command_line(pid: int) -> str:
    try:
        return re.sub("\0+", " ", (_PROC / str(pid) / "cmdline").read_text())[:120]
    except OSError:
        return "ended"
