"""What a session would leave on the machine: recorded while it runs, and removed at its end.

The records are files in the session's folder, for the case that this process is killed: see
`worker.stale_sessions`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from worker import stale_sessions, trees
from worker.process import session_folder, task_cgroup
from worker.process.children import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from worker.process.children import Children

_CREATED_LIMIT_S: Final = 0.2


class Leftovers:
    """The session's folder, the task's cgroup, and what earlier sessions have left."""

    def __init__(self, folder: Path, children: Children, emit: Callable[..., None]) -> None:
        self._folder, self._children, self._emit = folder, children, emit
        self._confined: asyncio.Task[None] | None = None
        self._stale: asyncio.Task[None] | None = None

    def record_display(self, display: str) -> None:
        """Record the X server's socket."""
        self._record(session_folder.DISPLAY, display)

    async def confine(self, pid: int | None) -> None:
        """Give the task a cgroup, if that is possible; takes some milliseconds in a thread.

        Args:
            pid: the task's process, if it runs already; it has started no other process.
        """
        self._confined = asyncio.ensure_future(in_thread(self._make_cgroup, pid))
        await asyncio.shield(self._confined)

    async def confined(self) -> None:
        """Wait until `confine` has finished, even if it was cancelled."""
        if self._confined is not None:
            await asyncio.wait([self._confined], timeout=_CREATED_LIMIT_S)

    def remove_stale(self) -> asyncio.Task[None]:
        """Remove once what killed workers left, in a thread."""
        if self._stale is None:
            self._stale = asyncio.ensure_future(self._report_stale())
        return self._stale

    async def remove(self, left: dict[str, Any], limit_s: float) -> None:
        """Remove folder and cgroup; `left` gets the field `left_files` if that fails."""
        left["left_files"] = [f"{self._folder}: it was not removed in time"]
        left["left_files"] = await in_thread(self._remove, limit_s)
        if not left["left_files"]:
            del left["left_files"]

    def _remove(self, limit_s: float) -> list[str]:
        left = []
        cgroup = self._children.cgroup
        if cgroup is not None and not cgroup.remove():
            left.append(f"{cgroup.path}: its processes have not ended")
        removed = trees.remove(self._folder, limit_s=limit_s, last=session_folder.LOCK)
        return left + [f"{self._folder}/{each}" for each in removed]

    def _make_cgroup(self, pid: int | None) -> None:
        path = task_cgroup.planned(self._folder.name)
        if path is None:
            return
        self._record(session_folder.CGROUP, str(path))
        self._children.cgroup = task_cgroup.create(path)
        if self._children.cgroup is not None and pid is not None:
            self._children.cgroup.add(pid)

    def _record(self, name: str, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk
            (self._folder / name).write_text(text)

    async def _report_stale(self) -> None:
        for fields in await in_thread(lambda: list(stale_sessions.remove(self._folder.parent))):
            self._emit("session.removed", **fields)
