"""Which processes of a machine get CPU time and memory first: the API, its programs, the workers.

The kernel shares out CPU time by cgroup, then by thread or, with autogroups (sched(7)), by session.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker import linux

if TYPE_CHECKING:
    from collections.abc import Iterator

_GROUP: Final = "worker-api"
_WEIGHT: Final = ("cpu.weight", "10000")
"""The default is 100."""
_SHARES: Final = ("cpu.shares", "102400")
"""The same in version 1; the default is 1024."""
_NICE: Final = 5
_WORKER_OOM_SCORE_ADJ: Final = 200
"""proc_pid_oom_score_adj(5). Chromium gives its renderers 300, so that these are killed first."""
_EXEC_POLL_S: Final = 0.001
_EXEC_WRITES: Final = 20


@contextlib.contextmanager
def own_cgroup() -> Iterator[None]:
    """Keep this process in a cgroup of its own, with more CPU time than those beside it.

    Only if it is in the root: a service, for example, has a group of its own already. Ignored if
    it is not permitted.
    """
    root = linux.cpu_cgroup()
    group = root.path / f"{_GROUP}-{os.getpid()}" if root is not None and root.is_root else None
    if root is None or group is None or not _enter(root, group):
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (root.path / "cgroup.procs").write_text("0")
            group.rmdir()


def _enter(root: linux.CpuCgroup, group: Path) -> bool:
    file, value = _WEIGHT if root.unified else _SHARES
    for each in root.path.glob(f"{_GROUP}-*"):  # those of killed APIs; others are not removed
        with contextlib.suppress(OSError):
            each.rmdir()
    try:
        root.share_out()
        group.mkdir()
        (group / file).write_text(value)
        (group / "cgroup.procs").write_text("0")
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return False
    return True


def lower_program(pid: int) -> None:
    """Give a program that the API has just started less CPU time than the API has."""
    _set_nice(pid)


def lower_worker(pid: int) -> None:
    """Give a new worker, and what it starts, less CPU time, and no memory before the API."""
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(pid) in (os.SCHED_FIFO, os.SCHED_RR):  # that of the API
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
    _set_nice(pid)
    _write(Path(f"/proc/{pid}/oom_score_adj"), str(_WORKER_OOM_SCORE_ADJ))


def _set_nice(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, _NICE)
    _write(Path(f"/proc/{pid}/autogroup"), str(_NICE))


def _write(file: Path, value: str) -> None:
    """Write into a new child's file in /proc, if possible.

    The child inherits from this process that it is not dumpable, so the file belongs to root. In
    execve(2), `start` returns some microseconds before the kernel gives the file to the user.
    """
    for _ in range(_EXEC_WRITES):
        try:
            file.write_text(value)
        except PermissionError:
            time.sleep(_EXEC_POLL_S)
        except OSError:
            return
        else:
            return
