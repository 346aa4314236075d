"""Which processes of a machine get CPU time and memory first: the API, its programs, the workers.

The kernel shares out CPU time by thread or, with autogroups (sched(7)), by session.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

_API_NICE: Final = -10
_PROGRAM_NICE: Final = 0
_WORKER_NICE: Final = 5
_WORKER_OOM_SCORE_ADJ: Final = 200
"""proc_pid_oom_score_adj(5). Chromium gives its renderers 300, so that these are killed first."""
_EXEC_POLL_S: Final = 0.001
_EXEC_WRITES: Final = 20


def raise_own() -> None:
    """Give this thread, and those that it starts, precedence; ignored if that is not permitted.

    Its session has it too, which is that of the terminal if it was started in one.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _API_NICE)
        Path("/proc/self/autogroup").write_text(str(_API_NICE))


def lower_program(pid: int) -> None:
    """Take the API's precedence from a program that it has just started."""
    _set_nice(pid, _PROGRAM_NICE)


def lower_worker(pid: int) -> None:
    """Give a new worker, and what it starts, less CPU time, and no memory before the API."""
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(pid) in (os.SCHED_FIFO, os.SCHED_RR):  # that of the API
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
    _set_nice(pid, _WORKER_NICE)
    _write(Path(f"/proc/{pid}/oom_score_adj"), str(_WORKER_OOM_SCORE_ADJ))


def _set_nice(pid: int, nice: int) -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    _write(Path(f"/proc/{pid}/autogroup"), str(nice))


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
