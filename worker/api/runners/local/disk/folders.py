"""Opens and reads folders that other programs made, and may still be changing."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

from worker.api.runners.machine_faults import prevents_reading

if TYPE_CHECKING:
    from collections.abc import Generator

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEEDED: Final = stat.S_IRUSR | stat.S_IXUSR


def identity(status: os.stat_result) -> tuple[int, int]:
    """What distinguishes a file from all others that exist."""
    return status.st_dev, status.st_ino


def entries(folder: str | int) -> Generator[os.DirEntry[str]]:
    """The entries of a folder; none, or not all, if it cannot be read.

    Raises:
        OSError: the machine prevents that it is read (`machine_faults`).
    """
    try:
        found = os.scandir(folder)
    except OSError as error:
        if prevents_reading(error):
            raise
        return
    with found, contextlib.suppress(OSError):
        yield from found


def open_folder(name: str, at: int | None) -> tuple[int, int | None]:
    """Open a folder whose owner may have no access; the mode that it had, if it was changed.

    Raises:
        OSError: it is gone, or replaced, or another user's.
    """
    with contextlib.suppress(PermissionError):
        opened = os.open(name, FOLDER, dir_fd=at)
        status = os.fstat(opened)
        if _has_access(status):
            return opened, None
        os.close(opened)
    path = os.open(name, FOLDER | os.O_PATH, dir_fd=at)
    try:
        status = os.fstat(path)
        mode = stat.S_IMODE(status.st_mode)
        link = f"/proc/self/fd/{path}"
        if _has_access(status):
            return os.open(link, FOLDER & ~os.O_NOFOLLOW), None
        os.chmod(link, mode | _NEEDED)  # noqa: PTH101 - fchmod refuses O_PATH
        return os.open(link, FOLDER & ~os.O_NOFOLLOW), mode
    finally:
        os.close(path)


def _has_access(status: os.stat_result) -> bool:
    """Whether the mode of a folder leaves its owner access; of another owner's, it is not ours."""
    return status.st_mode & _NEEDED == _NEEDED or status.st_uid != os.geteuid()
