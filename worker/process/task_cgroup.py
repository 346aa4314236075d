"""A cgroup (version 2) of the task's own, where this process may create one.

Every process that the task starts belongs to it, and `cgroup.kill` ends them all at once, whatever
they do (Linux 5.14, Documentation/admin-guide/cgroup-v2.rst). In most containers the file system is
read-only; on a host it works for root, and in a delegated cgroup.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker import linux

_REMOVE_LIMIT_S: Final = 0.5
_POLL_S: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCgroup:
    """A cgroup that exists."""

    path: Path

    def add(self, pid: int) -> None:
        """Move a process into it; its later children belong to it too. Ignored if it has ended."""
        with contextlib.suppress(OSError):
            (self.path / "cgroup.procs").write_text(str(pid))

    def kill(self) -> None:
        """Send SIGKILL to all of its processes, and to those that they are forking."""
        with contextlib.suppress(OSError):
            (self.path / "cgroup.kill").write_text("1")

    def remove(self) -> bool:
        """Remove it, with those that the task made in it; blocks until its processes have ended.

        Returns:
            False if it still exists.
        """
        deadline = time.monotonic() + _REMOVE_LIMIT_S
        while True:
            for folder, _, _ in os.walk(self.path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)  # noqa: PTH106 - a cgroup, whose files cannot be removed
            if not self.path.exists():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)


def planned(name: str) -> Path | None:
    """Where a cgroup of this name would be; None if version 2 is not mounted."""
    mount = linux.cgroup2_mount()
    own = next((path for controllers, path in linux.own_cgroups() if not controllers), None)
    if mount is None or own is None:
        return None
    return Path(mount, own.lstrip("/"), name)


def create(path: Path) -> TaskCgroup | None:
    """Create the cgroup; None if that is not permitted, or it cannot be killed."""
    try:
        path.mkdir()
    except OSError:
        return None
    if not (path / "cgroup.kill").exists():
        with contextlib.suppress(OSError):
            path.rmdir()
        return None
    return TaskCgroup(path=path)


def existing(recorded: str, *, name: str) -> TaskCgroup | None:
    """The cgroup of an earlier session, from a record that its task may have changed.

    Args:
        recorded: its path.
        name: which it must have.
    """
    mount = linux.cgroup2_mount()
    path = Path(os.path.realpath(recorded)) if "\0" not in recorded else None
    if mount is None or path is None or path.name != name:
        return None
    is_cgroup = path.is_relative_to(mount) and (path / "cgroup.kill").is_file()
    return TaskCgroup(path=path) if is_cgroup else None
