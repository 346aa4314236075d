"""Removes what workers left that were killed before they could clean up.

That is the session's folder; of what is recorded in it: x11vnc's shared memory, the X server's
socket and the task's cgroup; and the processes that still run in the session.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from worker import linux, trees
from worker.display import xvfb
from worker.process import session_folder, task_cgroup
from worker.vnc import shared_memory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

REMOVE_LIMIT_S: Final = 5.0
_ENDED_LIMIT_S: Final = 2.0
_POLL_S: Final = 0.01
_RECORD_MAX_BYTES: Final = 1 << 20
_DISPLAY_NAME: Final = re.compile(r":\d{1,5}")
# supervisord's log names the process of each program that it has started.
_SPAWNED: Final = re.compile(r"spawned: 'x11vnc(?:_control)?' with pid (\d+)")


def remove(
    parent: Path, *, owners: Collection[int] | None = None, only: str | None = None
) -> Iterator[dict[str, Any]]:
    """Remove what ended workers have left; each result describes one session's.

    A folder whose worker exists, or that belongs to another user, is never touched. Everything in a
    folder may have been written by the task, and is checked against the kernel's own records.

    Args:
        parent: where the folders of sessions are.
        owners: the user ids whose folders are removed; default: this process's.
        only: the name of the only folder that is removed; default: all.
    """
    for folder in session_folder.abandoned(parent, owners or {os.geteuid()}, only):
        uid = folder.lstat().st_uid
        _end_processes(folder, uid)
        creators = list(map(int, _SPAWNED.findall(_record(folder, "supervisord.log"))))
        _wait_for_end(creators)
        for pid in creators:
            shared_memory.remove_unused(pid, uid)
        display = _record(folder, session_folder.DISPLAY)
        if _DISPLAY_NAME.fullmatch(display):
            xvfb.remove_socket(display)
        left = trees.remove(folder, limit_s=REMOVE_LIMIT_S, last=session_folder.LOCK)
        yield {"folder": str(folder), **({"left_files": left} if left else {})}


def _record(folder: Path, name: str) -> str:
    """A small regular file of a session; empty if there is none."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(folder / name, flags), "rb") as file:  # noqa: PTH123 - a descriptor
            return file.read(_RECORD_MAX_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""


def _end_processes(folder: Path, uid: int) -> None:
    """Kill what runs with the session's temporary folder, which no other process has."""
    cgroup = task_cgroup.existing(_record(folder, session_folder.CGROUP), name=folder.name)
    if cgroup is not None:
        cgroup.kill()
        cgroup.remove()
    deadline = time.monotonic() + _ENDED_LIMIT_S
    variable = b"TMPDIR=" + os.fsencode(folder / session_folder.TMP)
    while pids := list(linux.pids_with_variable(variable, uid)):
        for pid in pids:
            _kill(pid, variable)
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_S)


def _wait_for_end(x11vncs: list[int]) -> None:
    """An ending process has no environment any more, and still has its shared memory."""
    deadline = time.monotonic() + _ENDED_LIMIT_S
    for pid in x11vncs:
        while linux.command_name(pid) == "x11vnc" and not linux.has_ended(pid):
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL_S)


def _kill(pid: int, variable: bytes) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        descriptor = os.pidfd_open(pid)
        try:
            if linux.has_variable(pid, variable):  # the process of the descriptor
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)
