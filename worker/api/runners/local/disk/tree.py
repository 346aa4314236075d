"""Counts what trees of files occupy that other programs made, and may still be changing.

It follows no link, enters no other device, opens folders only, needs two descriptors at any depth,
and limits its memory. The blocks of an inode are counted once, its names each: what takes time to
count is part of the number of files, so that a limit of that number also limits the time.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from worker.api.runners.local.disk import folders
from worker.api.runners.local.disk.folders import FOLDER, identity, open_folder
from worker.api.runners.local.disk.usage import Usage
from worker.api.runners.machine_faults import prevents_reading

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Self

ENTRIES_MAX: Final = 10_000_000
LIMIT_S: Final = 20.0
"""Of a count, without its pauses."""
TOO_MANY: Final = "it has too many files"
PENDING_MAX_BYTES: Final = 8 << 20
"""Of the names of folders that are still to be counted, about."""
SEVERAL_NAMES_MAX: Final = 20_000
"""Inodes with several names that are remembered; the blocks of others count for each name."""
_ATTEMPTS: Final = 3
_NAME_OVERHEAD_BYTES: Final = 100
_CHARACTER_BYTES: Final = 2  # of a name that is not UTF-8
_LEVEL_OVERHEAD_BYTES: Final = 400
_INODE_BITS: Final = 64
_BLOCK_BYTES: Final = 512  # the unit of st_blocks, stat(2)
_BATCH: Final = 500
"""Entries after which a count pauses."""


class _Stopped(Exception):
    """A limit was reached."""


class _Gone(Exception):
    """The root is not where it was."""


def count(
    roots: Iterable[Path],
    pids: Iterable[int] = (),
    *,
    entries_max: int = ENTRIES_MAX,
    limit_s: float = LIMIT_S,
) -> Usage:
    """Count what these trees occupy, and what these processes keep that has no name any more.

    Args:
        roots: files or folders; missing ones are ignored.
        pids: processes that may have files open that were deleted.
        entries_max: stop when there are more names.
        limit_s: stop after this time, in which pauses do not count.

    Raises:
        OSError: the machine prevents that they are read (`machine_faults`).
    """
    roots, pids = list(roots), list(pids)
    with _Pace(limit_s) as pace:
        for _ in range(_ATTEMPTS):
            counting = _Count(entries_max, pace)
            try:
                for root in roots:
                    counting.add_tree(root)
                for pid in pids:
                    counting.add_deleted(pid)
            except _Stopped as error:
                return counting.usage(str(error))
            if not counting.has_lost_folders:
                return counting.usage()
        return counting.usage("its folders are moved all the time")


class _Pace:
    """The time that a count takes: its limit, and pauses that leave other threads the processor.

    All counts together take about half of a processor.
    """

    _running: ClassVar[set[_Pace]] = set()

    def __init__(self, limit_s: float) -> None:
        self._left_s, self._steps = limit_s, 0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._running.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.discard(self)

    def step(self) -> None:
        """Once for each entry.

        Raises:
            _Stopped: the limit is reached.
        """
        self._steps += 1
        if self._steps % _BATCH:
            return
        took_s = time.monotonic() - self._began
        self._left_s -= took_s
        if self._left_s < 0:
            raise _Stopped("it takes too long")
        time.sleep(took_s * (2 * len(self._running) - 1))
        self._began = time.monotonic()


@dataclass(slots=True)
class _Level:
    """A folder that is being counted; `mode` is to be restored."""

    name: str
    identity: tuple[int, int]
    mode: int | None
    folders: list[str] = field(default_factory=list)


class _Count:
    def __init__(self, entries_max: int, pace: _Pace) -> None:
        self.has_lost_folders = False
        self._entries_max, self._step = entries_max, pace.step
        self._blocks, self._files, self._pending_bytes = 0, 0, 0
        self._seen: set[int] = set()
        self._devices: set[int] = set()
        self._levels: list[_Level] = []
        self._current = -1

    def usage(self, why_incomplete: str = "") -> Usage:
        return Usage(
            size_bytes=self._blocks * _BLOCK_BYTES,
            files=self._files,
            why_incomplete=why_incomplete,
        )

    def add_tree(self, root: Path) -> None:
        try:
            status = root.lstat()
        except OSError:
            return
        self._add(status)
        self._devices.add(status.st_dev)
        if not stat.S_ISDIR(status.st_mode) or not self._enter(str(root), None, status.st_dev):
            return
        try:
            self._walk()
        except _Gone:
            self.has_lost_folders = True
        finally:
            self._leave_all()

    def add_deleted(self, pid: int) -> None:
        """Add the files without a name that a process has open: their blocks are still in use."""
        with contextlib.closing(folders.entries(f"/proc/{pid}/fd")) as entries:
            for entry in entries:
                self._step()
                with contextlib.suppress(OSError):  # closed since
                    self._add_deleted(entry.stat())

    def _add_deleted(self, status: os.stat_result) -> None:
        is_deleted = stat.S_ISREG(status.st_mode) and status.st_nlink == 0
        if is_deleted and status.st_dev in self._devices and self._is_new(status):
            self._blocks += status.st_blocks
            self._files += 1

    def _walk(self) -> None:
        """Without recursion; `_current` is the folder of the last level."""
        self._scan()
        while True:
            level = self._levels[-1]
            if level.folders:
                name = level.folders.pop()
                self._pending_bytes -= _size_bytes(name)
                if self._enter(name, self._current, level.identity[0]):
                    self._scan()
            elif len(self._levels) == 1:
                return
            else:
                self._ascend()

    def _scan(self) -> None:
        """Add what is in the current folder."""
        level = self._levels[-1]
        with contextlib.closing(folders.entries(self._current)) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # removed since
                    status = entry.stat(follow_symlinks=False)
                    self._add(status)
                    if stat.S_ISDIR(status.st_mode) and status.st_dev == level.identity[0]:
                        level.folders.append(entry.name)
                        self._reserve(_size_bytes(entry.name))

    def _add(self, status: os.stat_result) -> None:
        self._step()
        if self._files >= self._entries_max:
            raise _Stopped(TOO_MANY)
        self._files += 1
        has_several_names = status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
        if not has_several_names or self._is_new(status):
            self._blocks += status.st_blocks

    def _is_new(self, status: os.stat_result) -> bool:
        identity = status.st_dev << _INODE_BITS | status.st_ino
        if identity in self._seen:
            return False
        if len(self._seen) < SEVERAL_NAMES_MAX:
            self._seen.add(identity)
        return True

    def _reserve(self, size_bytes: int) -> None:
        self._pending_bytes += size_bytes
        if self._pending_bytes > PENDING_MAX_BYTES:
            raise _Stopped("it has too many folders, beside or inside each other")

    # -- folders

    def _enter(self, name: str, at: int | None, device: int) -> bool:
        """Open a folder, which becomes the current one; False if it is gone or another device."""
        try:
            opened, mode = open_folder(name, at)
        except OSError as error:
            if prevents_reading(error):
                raise
            return False
        status = os.fstat(opened)
        if status.st_dev != device:
            os.close(opened)
            return False
        self._switch(opened)
        self._levels.append(_Level(name, identity(status), mode))
        self._reserve(_LEVEL_OVERHEAD_BYTES)
        return True

    def _ascend(self) -> None:
        try:
            opened = os.open("..", FOLDER, dir_fd=self._current)
        except OSError:  # removed since
            opened = -1
        self._leave()
        self._switch(opened)
        if opened < 0 or identity(os.fstat(opened)) != self._levels[-1].identity:
            self._find_way()

    def _find_way(self) -> None:
        """Go to the innermost folder of the way back that is still where it was."""
        self._switch(-1)
        way, self._levels = self._levels, []
        for level in way:
            self._step()
            found = self._at(level)
            if not found:
                break
            self._levels.append(level)
        lost = way[len(self._levels) :]
        self._pending_bytes -= sum(
            _LEVEL_OVERHEAD_BYTES + sum(map(_size_bytes, level.folders)) for level in lost
        )
        self.has_lost_folders |= any(level.folders for level in lost)
        if not self._levels:
            raise _Gone

    def _at(self, level: _Level) -> bool:
        """Make a folder of the way the current one, if it is still there."""
        try:
            opened, _ = open_folder(level.name, self._current if self._levels else None)
        except OSError:
            return False
        if identity(os.fstat(opened)) != level.identity:
            os.close(opened)
            return False
        self._switch(opened)
        return True

    def _leave(self) -> None:
        level = self._levels.pop()
        self._pending_bytes -= _LEVEL_OVERHEAD_BYTES
        if level.mode is not None and self._current >= 0:
            with contextlib.suppress(OSError):
                os.fchmod(self._current, level.mode)

    def _leave_all(self) -> None:
        """Of the folders above the current one, modes are restored only on a regular way back."""
        if self._levels:
            self._leave()
        self._levels.clear()
        self._pending_bytes = 0
        self._switch(-1)

    def _switch(self, opened: int) -> None:
        if self._current >= 0:
            os.close(self._current)
        self._current = opened


def _size_bytes(name: str) -> int:
    return len(name) * _CHARACTER_BYTES + _NAME_OVERHEAD_BYTES
