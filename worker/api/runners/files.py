"""Artifact files: valid names, and the files of this machine.

A task writes them, also while they are read: links, devices and names with `..` are refused, and
the tree is read up to limits. Every folder is opened relative to the one that contains it
(openat(2)), so that no part of a path can be a link.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import stat
from typing import IO, TYPE_CHECKING, Final

from worker.api.runners.machine_faults import prevents_reading
from worker.api.runners.protocol import Artifact

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Generator,
        Iterable,
        Iterator,
        Sequence,
    )
    from pathlib import Path

    Run = Callable[..., Awaitable[bytes]]
    """Calls a blocking function in a thread."""

FILES_MAX: Final = 10_000
"""A list has no more files."""
ENTRIES_MAX: Final = 50_000
"""No more entries of a tree are read for a list, whatever they are."""
DEPTH_MAX: Final = 16
"""Folders inside each other; files further down are no artifacts."""
NAME_MAX_BYTES: Final = 1024
"""Of a file's whole name in UTF-8; files with longer names are no artifacts."""
_PIECE_BYTES: Final = 256 * 1024
_HIDDEN: Final = "."
_SEPARATOR: Final = "/"
READ_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# O_NONBLOCK: opening a FIFO, or a file with a lease (fcntl(2)), would wait.
READ_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def is_valid_name(name: str) -> bool:
    """Whether an artifact may have this name; the same for listing and for opening it.

    A name stays inside the folder, has no hidden part (temporary files), can be sent as JSON, and
    is within the limits. Any other character is allowed, line breaks included.
    """
    if name.count(_SEPARATOR) > DEPTH_MAX:
        return False
    if any(not part or part.startswith(_HIDDEN) for part in name.split(_SEPARATOR)):
        return False
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return False
    return b"\0" not in encoded and len(encoded) <= NAME_MAX_BYTES


def listed(found: Iterable[Artifact]) -> Sequence[Artifact]:
    """The first FILES_MAX of these files, sorted by name."""
    return sorted(itertools.islice(found, FILES_MAX), key=lambda artifact: artifact.name)


def list_files(folder: Path) -> Sequence[Artifact]:
    """The regular files below a folder; none without a folder. Blocks: use a thread.

    Raises:
        OSError: the machine prevents that they are read (`machine_faults`).
    """
    with contextlib.closing(_files(folder)) as found:
        return listed(found)


class _Folder:
    """A folder that is being read; the names of its files begin with `prefix`."""

    def __init__(self, path: str, at: int | None, prefix: str) -> None:
        self.descriptor = os.open(path, READ_FOLDER, dir_fd=at)
        self.prefix = prefix
        try:
            self._entries = os.scandir(self.descriptor)
        except OSError:
            os.close(self.descriptor)
            raise

    def next(self) -> os.DirEntry[str] | None:
        """The next entry; None at the end, and if the folder cannot be read any more."""
        with _ignoring_its_errors():
            return next(self._entries, None)
        return None

    def close(self) -> None:
        self._entries.close()
        os.close(self.descriptor)


def _files(folder: Path) -> Generator[Artifact]:
    """Depth first; at most DEPTH_MAX + 1 folders are open at a time."""
    opened: list[_Folder] = []
    try:
        _enter(opened, str(folder), "")
        for _ in range(ENTRIES_MAX):
            if (entry := _next(opened)) is None:
                return
            name = opened[-1].prefix + entry.name
            status = _status(entry) if is_valid_name(name) else None
            if status is None:
                continue
            if stat.S_ISREG(status.st_mode):
                yield Artifact(name=name, size_bytes=status.st_size)
            elif stat.S_ISDIR(status.st_mode) and len(opened) <= DEPTH_MAX:
                _enter(opened, entry.name, name + _SEPARATOR)
    finally:
        for each in opened:
            each.close()


def _enter(opened: list[_Folder], path: str, prefix: str) -> None:
    at = opened[-1].descriptor if opened else None
    with _ignoring_its_errors():  # removed or replaced since, or without permission
        opened.append(_Folder(path, at, prefix))


def _next(opened: list[_Folder]) -> os.DirEntry[str] | None:
    """The next entry of the innermost folder; leaves folders that are read completely."""
    while opened:
        if (entry := opened[-1].next()) is not None:
            return entry
        opened.pop().close()
    return None


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    with _ignoring_its_errors():
        return entry.stat(follow_symlinks=False)
    return None  # removed since


@contextlib.contextmanager
def _ignoring_its_errors() -> Iterator[None]:
    """Suppress errors of one file or folder, not those of the machine."""
    try:
        yield
    except OSError as error:
        if prevents_reading(error):
            raise


def open_file(folder: Path, name: str, run: Run = asyncio.to_thread) -> AsyncIterator[bytes] | None:
    """A file's content as it is now, in pieces; None if there is no such regular file.

    Blocks: use a thread. The pieces are read by `run`.

    Raises:
        OSError: the machine prevents that it is read (`machine_faults`).
    """
    file = _open(folder, name)
    return None if file is None else _pieces(file, os.fstat(file.fileno()).st_size, run)


def _open(folder: Path, name: str) -> IO[bytes] | None:
    """Open each part of the name separately."""
    if not is_valid_name(name):
        return None
    *folders, last = name.split(_SEPARATOR)
    with _ignoring_its_errors():
        at = os.open(folder, READ_FOLDER)
        for part in folders:
            at = _step(at, part, READ_FOLDER)
        return regular_file(_step(at, last, READ_FILE))
    return None


def regular_file(descriptor: int) -> IO[bytes] | None:
    """A file object that owns the descriptor; None, and it is closed, if it is no regular file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb", buffering=0)


def _step(at: int, part: str, flags: int) -> int:
    try:
        return os.open(part, flags, dir_fd=at)
    finally:
        os.close(at)


async def _pieces(file: IO[bytes], left_bytes: int, run: Run) -> AsyncIterator[bytes]:
    """At most `left_bytes`: the task may be appending to the file."""
    with file:
        while left_bytes and (piece := await run(file.read, min(_PIECE_BYTES, left_bytes))):
            left_bytes -= len(piece)
            yield piece
