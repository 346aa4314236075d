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
        beside: the group in which theirs are, next to the API's; None: there is none.
    """

    beside: linux.CpuCgroup | None = None

    @property
    def parent(self) -> Path | None:
        """The parent of the tasks' groups."""
        return self.beside.path / _NAME if self.beside else None

    def create(self, uid: int) -> str:
        """Create the group of a uid; its path, or an empty text if it cannot be created."""
        if self.beside is None or self.parent is None:
            return ""
        group = self.parent / str(uid)
        file, value = _WEIGHT if self.beside.unified else _SHARES
        try:
            self.beside.share_out()
            self.parent.mkdir(exist_ok=True)
            (self.parent / file).write_text(value)
            self.beside._replace(path=self.parent).share_out()
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
    own = linux.cpu_cgroup()
    if own is None:
        return CpuShares()
    return CpuShares(beside=own if own.is_root else own._replace(path=own.path.parent))


def join(group: str) -> None:
    """Move this process into a group, if there is one."""
    if group:
        with contextlib.suppress(OSError):
            Path(group, "cgroup.procs").write_text("0")
