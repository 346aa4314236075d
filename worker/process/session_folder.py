"""The private folder of a session, and whether its worker exists.

A worker locks a file in its folder (flock(2)) until it ends, however it ends. A folder whose lock
is free was left by a worker that was killed. The age of a folder means nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.surroundings import temporary

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

LOCK: Final = "worker.lock"
TMP: Final = "tmp"
"""The folder for temporary files of the session's processes."""
DISPLAY: Final = "display"
"""A file with the display's name, for example `:7`."""
CGROUP: Final = "cgroup"
"""A file with the path of the task's cgroup."""
_DRAFT: Final = ".worker.lock"


def lock(folder: Path) -> int:
    """Lock the folder of this process; the descriptor holds the lock.

    The file gets its name when it is locked, so an unlocked one never has it.

    Raises:
        OSError: it cannot be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(folder / _DRAFT, flags, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.rename(folder / _DRAFT, folder / LOCK)  # noqa: PTH104 - the system call that is meant
    return descriptor


def abandoned(parent: Path, owners: Collection[int], only: str | None = None) -> Iterator[Path]:
    """The folders in `parent` whose worker has ended; each is locked until the next is taken.

    Args:
        parent: the folder of temporary files.
        owners: the user ids whose folders are examined.
        only: the name of the only folder to examine; default: all.
    """
    for folder in _folders(parent, owners, only):
        descriptor = _take_lock(folder)
        if descriptor is not None:
            try:
                yield folder
            finally:
                os.close(descriptor)


def _folders(parent: Path, owners: Collection[int], only: str | None) -> list[Path]:
    found = []
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith(temporary.PREFIX) or only not in (None, entry.name):
                continue
            with contextlib.suppress(OSError):
                is_own = entry.stat(follow_symlinks=False).st_uid in owners
                if is_own and entry.is_dir(follow_symlinks=False):
                    found.append(Path(entry.path))
    return found


def _take_lock(folder: Path) -> int | None:
    """Lock a folder whose worker has ended; None if it has not, or it is not a session's."""
    # O_NONBLOCK: a FIFO in its place must not block.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(folder / LOCK, flags)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
