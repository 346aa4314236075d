"""Artifact files: valid names, and the files of this machine.

A task writes them and may be compromised: links, devices and names with `..` are refused.
"""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING, Final

from worker.api.runners.protocol import Artifact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

_FILES_MAX: Final = 10_000
_PIECE_BYTES: Final = 256 * 1024
_DEPTH_MAX: Final = 16
_HIDDEN: Final = "."
_SEPARATOR: Final = "/"


def is_valid_name(name: str) -> bool:
    """Whether an artifact may have this name; the same for listing and for opening it.

    A name stays inside the folder, has no hidden part (temporary files), and can be sent as JSON.
    Any other character is allowed, line breaks included.
    """
    if any(not part or part.startswith(_HIDDEN) for part in name.split(_SEPARATOR)):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def list_files(folder: Path) -> Sequence[Artifact]:
    """The regular files below a folder, sorted by name, at most 10 000; none without a folder."""
    found = []
    for artifact in _walk(str(folder), ""):
        found.append(artifact)
        if len(found) == _FILES_MAX:
            break
    return sorted(found, key=lambda artifact: artifact.name)


def _walk(folder: str, prefix: str) -> Iterator[Artifact]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        name = prefix + entry.name
        if not is_valid_name(name):
            continue
        if entry.is_dir(follow_symlinks=False) and name.count(_SEPARATOR) < _DEPTH_MAX:
            yield from _walk(entry.path, name + _SEPARATOR)
        elif entry.is_file(follow_symlinks=False):
            yield Artifact(name=name, size_bytes=entry.stat(follow_symlinks=False).st_size)


def open_file(folder: Path, name: str) -> AsyncIterator[bytes] | None:
    """A file's content, in pieces; None if there is no such regular file below the folder."""
    descriptor = _open(folder, name)
    return None if descriptor is None else _pieces(descriptor)


def _open(folder: Path, name: str) -> int | None:
    """Open each part of the name separately, so that no part can be a link (openat(2))."""
    if not is_valid_name(name):
        return None
    *folders, last = name.split(_SEPARATOR)
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for part in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            at = _step(at, part, flags)
        # O_NONBLOCK: without it, opening a FIFO blocks until its other end is opened.
        descriptor = _step(at, last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return descriptor


def _step(at: int, part: str, flags: int) -> int:
    try:
        return os.open(part, flags, dir_fd=at)
    finally:
        os.close(at)


async def _pieces(descriptor: int) -> AsyncIterator[bytes]:
    with os.fdopen(descriptor, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece
