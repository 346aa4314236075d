"""Kills every process of a user: `python -I -S kill_all.py UID`, executed by its path, as root.

It stays root: the user's processes can neither signal nor trace it, nor change its limits or its
scheduling; and they cannot use up its CPU time, since its policy is SCHED_FIFO.

    kill(-1)    by a child that has become the user: it reaches all processes at once, and none can
                fork before it is killed. But they can stop that child, so nothing depends on it.
    passes      over all processes: RLIMIT_NPROC 0, with which a process of another user than root
                cannot fork, and SIGKILL

The exit code is 1 if a process still exists after LIMIT_S. A process that forks and ends at once
may be missed by any list of processes, so that none is left is known from the kernel itself
(`linux.user_has_processes`). Where zombies remain, which their parents have not reaped yet, it is
known from two passes that find none, after a kill(-1) that has succeeded, or if every process that
was listed could be examined.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[5]))

from worker import linux

LIMIT_S: Final = 5.0
_PAUSE_S: Final = 0.005
_CHILD_LIMIT_MS: Final = 100
_QUIET_PASSES: Final = 2


def main() -> int:
    """Kill until no process is left; returns the exit code."""
    uid = int(sys.argv[1])
    if uid <= 0:
        raise ValueError(uid)
    if linux.proc_is_partial():
        with contextlib.suppress(OSError):
            linux.unshare_mounts_and_ipc()
            linux.mount_proc()
    with contextlib.suppress(PermissionError):  # without CAP_SYS_NICE
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    give_up_at = time.monotonic() + LIMIT_S
    child: int | None = _start_child(uid)
    reached_all, quiet = False, 0
    killed: set[int] = set()
    while child is not None or linux.user_has_processes(uid):
        ended, status = os.waitpid(child, os.WNOHANG) if child is not None else (0, 0)
        if ended:
            child, reached_all = None, status == 0
        found, complete = _kill_each(uid)
        quiet = quiet + 1 if not found and (complete or reached_all) else 0
        is_new, killed = not found <= killed, found
        if quiet == _QUIET_PASSES:
            return 0  # what is left are zombies
        if time.monotonic() > give_up_at:
            return 1
        if not is_new:  # those that are killed need CPU time to end: SCHED_FIFO leaves none
            time.sleep(_PAUSE_S)
    return 0


def _start_child(uid: int) -> int:
    """Start a child that calls kill(-1) as the user; it is killed itself if it takes long.

    That may not end it at once, since the user's processes can also make it SCHED_IDLE.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _become(uid)
            os.kill(-1, signal.SIGKILL)
            code = 0
        finally:
            os._exit(code)
    descriptor = os.pidfd_open(child)
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        if not waiting.poll(_CHILD_LIMIT_MS):
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(descriptor)
    return child


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # With securebits it would have kept them; with CAP_KILL, kill(-1) would reach every process.
    linux.drop_capabilities()


def _kill_each(uid: int) -> tuple[set[int], bool]:
    """Kill the processes in /proc; those that were found, and whether all could be examined."""
    found: set[int] = set()
    complete = True
    for pid in linux.pids():
        status = linux.status_of(pid)
        if status is None:
            complete = False
        elif status.runs and uid in status.uids:
            found.add(pid)
            with contextlib.suppress(ProcessLookupError):
                _kill(pid, uid)
    return found, complete


def _kill(pid: int, uid: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        status = linux.status_of(pid)  # again: it refers to the process of the pidfd
        if status is None or uid not in status.uids:
            return
        with contextlib.suppress(PermissionError):  # without CAP_SYS_RESOURCE
            before = resource.prlimit(pid, resource.RLIMIT_NPROC, (0, 0))
            _restore_if_reused(pid, descriptor, before)
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _restore_if_reused(pid: int, descriptor: int, limits: tuple[int, int]) -> None:
    """Give the limits back to a process that has got the pid of the one that was to be limited."""
    try:
        signal.pidfd_send_signal(descriptor, 0)
    except ProcessLookupError:
        resource.prlimit(pid, resource.RLIMIT_NPROC, limits)
        raise


if __name__ == "__main__":
    sys.exit(main())
