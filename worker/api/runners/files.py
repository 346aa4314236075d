"""Artifact files: how they may be called; those of this machine, listed and opened.

A task writes them, and a task may be broken into: links, devices and names with `..` lead nowhere.
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


def is_name(name: str) -> bool:
    """Whether an artifact may be called so; the same for listing and for opening it.

    No way out of the folder, no draft, and nothing that JSON cannot carry; any other character,
    line breaks included, can stand in a name.
    """
    if any(not part or part.startswith(_HIDDEN) for part in name.split(_SEPARATOR)):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def listed(folder: Path) -> Sequence[Artifact]:
    """The regular files below a folder, sorted by name; none when there is no folder."""
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
        if not is_name(name):
            continue
        if entry.is_dir(follow_symlinks=False) and name.count(_SEPARATOR) < _DEPTH_MAX:
            yield from _walk(entry.path, name + _SEPARATOR)
        elif entry.is_file(follow_symlinks=False):
            yield Artifact(name=name, size_bytes=entry.stat(follow_symlinks=False).st_size)


def opened(folder: Path, name: str) -> AsyncIterator[bytes] | None:
    """A file's bytes, in pieces; None when there is no such regular file below the folder."""
    descriptor = _open(folder, name)
    return None if descriptor is None else _pieces(descriptor)


def _open(folder: Path, name: str) -> int | None:
    """Open each part of the name by itself, so that no part can be a link (openat(2))."""
    if not is_name(name):
        return None
    *folders, last = name.split(_SEPARATOR)
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        for part in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            at = _step(at, part, flags)
        # O_NONBLOCK: opening a FIFO would wait for its other end.
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
