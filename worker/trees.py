"""Removes a tree of files that another program made, and may still be changing.

It follows no link, enters no other mount, needs two descriptors at any depth, and reports what it
could not remove instead of raising.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LEFT_MAX: Final = 20
_OWNER_ALL: Final = 0o700
_PASSES_MAX: Final = 5  # a directory that is not empty after this many is being filled
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH_CHARS: Final = 300


class _TimeOver(Exception):
    """The limit was reached, or the tree has changed so that the way back is lost."""


def remove(root: Path, *, limit_s: float, last: str | None = None) -> list[str]:
    """Remove a tree.

    Args:
        root: a directory; a missing one is ignored.
        limit_s: give up after this time.
        last: the name of a file in `root` that is removed only when nothing else is left.

    Returns:
        What is left, relative to `root` (`.` is `root` itself) and with the reason: at most
        LEFT_MAX entries.
    """
    removal = _Removal(deadline=time.monotonic() + limit_s, last=last)
    try:
        removal.remove(root)
    except FileNotFoundError:
        return []
    except _TimeOver as error:
        removal.report(["."], str(error))
    except OSError as error:
        removal.report(["."], error.strerror)
    return removal.left


@dataclass(slots=True)
class _Level:
    """A directory that is being emptied."""

    name: str
    identity: tuple[int, int]
    folders: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    passes: int = 0


@dataclass(slots=True, kw_only=True)
class _Removal:
    deadline: float
    last: str | None
    left: list[str] = field(default_factory=list)
    _levels: list[_Level] = field(default_factory=list)
    _mount: str = ""
    _current: int = -1

    def remove(self, root: Path) -> None:
        self._current = _open(str(root), None)
        try:
            self._mount = _mount_of(self._current)
            self._enter(".")
            self._empty()
            if not self.left:
                self._remove_root(root)
        finally:
            os.close(self._current)

    def _remove_root(self, root: Path) -> None:
        if self.last is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.last, dir_fd=self._current)
        try:
            os.rmdir(root)  # noqa: PTH106 - of the same kind as the other calls
        except OSError:  # it has been filled meanwhile
            if self.last is not None:
                os.close(os.open(self.last, _CREATE, 0o600, dir_fd=self._current))
            raise

    def report(self, names: list[str], why: str | None) -> None:
        if len(self.left) < LEFT_MAX:
            path = "/".join(names)
            if len(path) > _PATH_CHARS:
                path = f"{path[:_PATH_CHARS]}…"
            self.left.append(f"{path}: {why}")

    def _empty(self) -> None:
        """Walk without recursion; `_current` is the directory of the last level."""
        while True:
            if time.monotonic() > self.deadline:
                raise _TimeOver("it was not removed in time")
            level = self._levels[-1]
            if level.folders:
                self._descend(level.folders.pop())
            elif self._unlink_files(level):
                continue
            elif len(self._levels) == 1:
                return
            else:
                self._ascend()

    def _unlink_files(self, level: _Level) -> bool:
        """Remove what is no directory; whether there is anything else to do in it."""
        level.passes += 1
        found_more = False
        with os.scandir(self._current) as entries:
            for entry in entries:
                if entry.name in level.kept or (len(self._levels) == 1 and entry.name == self.last):
                    continue
                if level.passes > _PASSES_MAX:
                    self._keep(level, entry.name, "it is created again and again")
                elif entry.is_dir(follow_symlinks=False):
                    level.folders.append(entry.name)
                else:
                    self._try(level, entry.name, os.unlink)
                found_more = True
        return found_more and level.passes <= _PASSES_MAX

    def _descend(self, name: str) -> None:
        level = self._levels[-1]
        try:
            opened = _open(name, self._current)
        except FileNotFoundError:
            return
        except OSError as error:
            self._keep(level, name, error.strerror)
            return
        if _mount_of(opened) != self._mount:
            os.close(opened)
            self._keep(level, name, "it is a mount")
            return
        os.close(self._current)
        self._current = opened
        self._enter(name)

    def _enter(self, name: str) -> None:
        self._levels.append(_Level(name, _identity(self._current)))

    def _ascend(self) -> None:
        level = self._levels.pop()
        parent = self._levels[-1]
        opened = os.open("..", _FOLDER, dir_fd=self._current)
        os.close(self._current)
        self._current = opened
        if _identity(opened) != parent.identity:
            raise _TimeOver("its directories were moved while it was removed")
        if level.kept:
            parent.kept.add(level.name)
        else:
            self._try(parent, level.name, os.rmdir)

    def _try(self, level: _Level, name: str, call: Callable[..., None]) -> None:
        try:
            call(name, dir_fd=self._current)
        except FileNotFoundError:
            pass
        except OSError as error:
            if call is os.rmdir and level.passes < _PASSES_MAX:
                return  # it has been filled meanwhile: the next pass finds it
            self._keep(level, name, error.strerror)

    def _keep(self, level: _Level, name: str, why: str | None) -> None:
        level.kept.add(name)
        self.report([*(each.name for each in self._levels[1:]), name], why)


def _open(name: str, at: int | None) -> int:
    """Open a directory, after giving its owner access to it."""
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=at)
    except PermissionError:
        _permit(name, at)
        return os.open(name, _FOLDER, dir_fd=at)
    mode = os.fstat(descriptor).st_mode
    if stat.S_IMODE(mode) & _OWNER_ALL != _OWNER_ALL:
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, _OWNER_ALL)
    return descriptor


def _permit(name: str, at: int | None) -> None:
    """Change the mode of a directory that cannot be opened, and not of what a link refers to."""
    descriptor = os.open(name, _FOLDER | os.O_PATH, dir_fd=at)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", _OWNER_ALL)  # noqa: PTH101 - fchmod refuses O_PATH
    finally:
        os.close(descriptor)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _mount_of(descriptor: int) -> str:
    """The mount that a directory is on (proc(5), fdinfo); a bind mount has no device of its own."""
    with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{descriptor}") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("mnt_id:"):
                return line
    return str(os.fstat(descriptor).st_dev)
