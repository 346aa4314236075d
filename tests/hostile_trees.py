"""Trees of files that a task can leave: one list for the walker, the removal and the runners."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

FILE = "note.txt"
"""A regular file that every tree has at its top, with the content b"a note"."""
DEEP = 1200


def _deep(folder: Path) -> None:
    """More levels than a path, a call stack and the descriptors of a process allow."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("d" * 50, dir_fd=at)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=at))
    os.close(at)


def _wide(folder: Path) -> None:
    for number in range(3000):
        (folder / f"empty{number}").touch()


def _links(folder: Path) -> None:
    (folder / "file").symlink_to("/etc/passwd")
    (folder / "folder").symlink_to("/etc")
    (folder / "self").symlink_to(".")
    (folder / "loop").symlink_to("loop")
    (folder / "missing").symlink_to("none")


def _special(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as bound:  # the folder's own path may be too long
        bound.bind(f"/proc/self/fd/{at}/socket")
    os.close(at)
    (folder / "device").symlink_to("/dev/zero")


def _no_permissions(folder: Path) -> None:
    for mode in (0o000, 0o100, 0o400, 0o500):
        inner = folder / f"mode{mode:o}"
        (inner / "inner").mkdir(parents=True)
        (inner / "inner" / "file").touch()
        (inner / "inner").chmod(mode)
        inner.chmod(mode)


def _names(folder: Path) -> None:
    for name in (b"\xff", b"two\nlines", b".hidden", b"-rf", b" ", b"x" * 255, b"\xed\xa0\x80"):
        (folder / os.fsdecode(name)).touch()
    (folder / ("n" * 255) / ("n" * 255) / ("n" * 255) / ("n" * 255)).mkdir(parents=True)
    (folder / ("n" * 255) / ("n" * 255) / ("n" * 255) / ("n" * 255) / ("n" * 255)).touch()


def _sparse(folder: Path) -> None:
    with (folder / "sparse").open("wb") as file:
        file.truncate(3 << 30)


TREES: dict[str, Callable[[Path], None]] = {
    "deep": _deep,
    "wide": _wide,
    "links": _links,
    "special files": _special,
    "no permissions": _no_permissions,
    "names": _names,
    "sparse": _sparse,
}


def plant(name: str, folder: Path) -> None:
    """Write one of TREES into an existing folder, with FILE beside it."""
    (folder / FILE).write_bytes(b"a note")
    TREES[name](folder)
