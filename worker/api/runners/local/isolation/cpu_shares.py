"""A cgroup for each running task, so that many busy processes of one do not slow down the others.

The kernel shares out CPU time among cgroups first, however many processes and sessions each one
has (Documentation/admin-guide/cgroup-v2.rst, "CPU"; cgroup-v1/cpu.rst in the scheduler's). The
tasks' groups have a common parent next to the API's own group, with a lower weight than it:

    <parent of the API's group>/worker-tasks/<uid>
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker import linux

_NAME: Final = "worker-tasks"
_WEIGHT: Final = ("cpu.weight", "33")
"""That of all tasks together; the default is 100. It corresponds to niceness 5."""
_SHARES: Final = ("cpu.shares", "335")
"""The same in version 1; the default is 1024."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuShares:
    """The tasks' groups.

    Attributes:
        parent: theirs; None: they have none, since the file system of cgroups is not writable.
        unified: whether it is of version 2.
    """

    parent: Path | None = None
    unified: bool = True

    def create(self, uid: int) -> str:
        """Create the group of a uid; its path, or an empty text if it cannot be created."""
        if self.parent is None:
            return ""
        group = self.parent / str(uid)
        try:
            if self.unified:
                _enable(self.parent.parent)
            self.parent.mkdir(exist_ok=True)
            file, value = _WEIGHT if self.unified else _SHARES
            (self.parent / file).write_text(value)
            if self.unified:
                _enable(self.parent)
            group.mkdir(exist_ok=True)
        except OSError:
            return ""
        return str(group)

    def remove(self, uid: int) -> None:
        """Remove the group of a uid whose processes have ended, and the parent with the last."""
        if self.parent is not None:
            with contextlib.suppress(OSError):
                (self.parent / str(uid)).rmdir()
                self.parent.rmdir()


def detect() -> CpuShares:
    """Where the tasks' groups would be on this machine."""
    for controllers, own in linux.own_cgroups():
        unified = not controllers
        if unified or "cpu" in controllers.split(","):
            mount = linux.cgroup2_mount() if unified else linux.cgroup1_mount("cpu")
            if mount is not None:
                beside = Path(mount, own.lstrip("/")) if own == "/" else Path(mount, own[1:]).parent
                if not unified or "cpu" in _controllers(beside):
                    return CpuShares(parent=beside / _NAME, unified=unified)
    return CpuShares()


def join(group: str) -> None:
    """Move this process into a group, if there is one."""
    if group:
        with contextlib.suppress(OSError):
            Path(group, "cgroup.procs").write_text("0")


def _controllers(group: Path) -> list[str]:
    try:
        return (group / "cgroup.controllers").read_text().split()
    except OSError:
        return []


def _enable(group: Path) -> None:
    """Have the kernel share out CPU time among the groups in this one."""
    if "cpu" not in (group / "cgroup.subtree_control").read_text().split():
        (group / "cgroup.subtree_control").write_text("+cpu")
