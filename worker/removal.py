"""Removes folders that a task could write to, whatever it left in them.

Folders may be nested more deeply than a path, a call stack or the descriptors of a process allow,
and may lack permissions. So a tree is flattened while it is removed: the subfolders of each folder
are moved into the tree's outermost folder. Every path is relative to an open folder (openat(2)),
and no link is followed.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRIES_MAX: Final = 1_000_000
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OWNER_ALL: Final = 0o700


def remove_tree(path: Path, entries_max: int = ENTRIES_MAX) -> str | None:
    """Remove a folder and its content, or what is in its place. Blocks; never raises.

    Args:
        path: the folder; links in the path of its parent are followed.
        entries_max: the limit of one call; the next call continues.

    Returns:
        Why it still exists; None if it does not.
    """
    try:
        at = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return _Removal(entries_max).remove(at, path.name)
        finally:
            os.close(at)
    except OSError as error:
        return error.strerror if os.path.lexists(path) else None


class _Removal:
    """One call; continues after an error, and returns the first one."""

    def __init__(self, entries_max: int) -> None:
        self._left = entries_max
        self._why: str | None = None
        self._moved = f".removed-{secrets.token_hex(8)}"  # a task cannot create it in advance

    def remove(self, at: int, name: str) -> str | None:
        """Remove an entry of an open folder; returns or raises why it still exists."""
        if not stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=at)
            return None
        root = _open(at, name)
        try:
            done = True
            while done:
                self._why = None  # what an earlier pass could not do may have been done since
                done = self._empty(root, lambda each: self._remove_flat(root, each))
        finally:
            os.close(root)
        if self._why is None:
            os.rmdir(name, dir_fd=at)
        return self._why

    def _remove_flat(self, root: int, name: str) -> None:
        """Remove a folder of the root; its own folders become folders of the root."""
        folder = _open(root, name)
        try:
            while self._empty(folder, lambda each: self._move_up(root, folder, each)):
                pass
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=root)

    def _move_up(self, root: int, folder: int, name: str) -> None:
        os.close(_open(folder, name))  # without write permission it could not be moved
        os.rename(name, f"{self._moved}-{self._left}", src_dir_fd=folder, dst_dir_fd=root)

    def _empty(self, folder: int, handle_folder: Callable[[str], None]) -> bool:
        """Remove the files of a folder, and handle its folders; whether anything was done."""
        done = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                if self._left == 0:
                    self._why = self._why or "it has too many entries for one call"
                    return False
                self._left -= 1
                try:
                    if entry.is_dir(follow_symlinks=False):
                        handle_folder(entry.name)
                    else:
                        os.unlink(entry.name, dir_fd=folder)
                    done += 1
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._why = self._why or error.strerror
        return done > 0


def _open(at: int, name: str) -> int:
    """Open a folder with all permissions of its owner."""
    # O_PATH needs no permission, but fchmod(2) does not take such a descriptor.
    path = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
    try:
        mode = stat.S_IMODE(os.fstat(path).st_mode)
        if mode & _OWNER_ALL != _OWNER_ALL:
            Path(f"/proc/self/fd/{path}").chmod(mode | _OWNER_ALL)
        return os.open(".", _FOLDER, dir_fd=path)
    finally:
        os.close(path)
