"""The processes below this one, which is a subreaper: found, and signalled without confusing pids.

A process below this one is a child, or becomes one when its parent ends (prctl(2),
PR_SET_CHILD_SUBREAPER). The pid of a child is not reused before this process reaps it, so a child
can be signalled by its pid; any other process by a pidfd, after a check of its parents.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from typing import TYPE_CHECKING, Final

from worker import linux

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_DEPTH_MAX: Final = 4096  # of the chain of parents; more means that it has changed meanwhile
_QUICK_TO_TRY: Final = 2**16
_STATES: Final = os.WEXITED | os.WNOHANG | os.WNOWAIT


def tree(spare: Collection[int] = ()) -> list[int]:
    """The running processes below this one, without `spare` and what is below those.

    Those that /proc does not show (proc(5), hidepid) are missing.
    """
    below: dict[int, list[int]] = {}
    ended = set()
    for pid, parent, state in linux.processes():
        below.setdefault(parent, []).append(pid)
        if state in "ZX":
            ended.add(pid)
    found = []
    pending = [os.getpid()]
    while pending:
        for pid in below.pop(pending.pop(), ()):
            if pid not in spare:
                pending.append(pid)
                found.append(pid)
    return [pid for pid in found if pid not in ended]


def of(root: int) -> list[int]:
    """Any process, and the running processes below it."""
    below: dict[int, list[int]] = {}
    for pid, parent, state in linux.processes():
        if state not in "ZX":
            below.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:  # which grows meanwhile
        found += below.pop(pid, ())
    return found


def is_running_child(pid: int) -> bool:
    """Whether a process is a child that has not ended; needs no /proc."""
    try:
        return os.waitid(os.P_PID, pid, _STATES) is None
    except OSError:
        return False


def possible_pids() -> Iterable[int]:
    """The process ids that were assigned since this process was started."""
    largest = linux.pid_max()
    own, newest = os.getpid(), linux.newest_pid()
    if largest <= _QUICK_TO_TRY:  # they may have been assigned more than once since
        return range(1, largest + 1)
    if newest > own:
        return range(own + 1, newest + 1)
    return itertools.chain(range(1, newest + 1), range(own + 1, largest + 1))


def children_among(pids: Iterable[int]) -> list[int]:
    """Those of the process ids that are running children."""
    return [pid for pid in pids if is_running_child(pid)]


def send(pid: int, number: int) -> bool:
    """Signal a process below this one; False if that is not permitted.

    One that has ended, or is not below this one, is not signalled.
    """
    with contextlib.suppress(ProcessLookupError):
        try:
            if is_running_child(pid):
                os.kill(pid, number)
            else:
                _send_by_pidfd(pid, number)
        except PermissionError:
            return False
    return True


def _send_by_pidfd(pid: int, number: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        if _is_below(pid):  # checked after the pidfd was opened: it refers to what was checked
            signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def _is_below(pid: int) -> bool:
    own = os.getpid()
    current: int | None = pid
    for _ in range(_DEPTH_MAX):
        current = linux.parent_pid(current) if current else None
        if current == own:
            return True
    return False
