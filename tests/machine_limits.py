"""Limits of a machine that tests impose: a small disk, little memory, few descriptors."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from required import skip_or_fail

_MEMORY_V1 = Path("/sys/fs/cgroup/memory")
_UNIFIED = Path("/sys/fs/cgroup")
MNT_DETACH = 2


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Mount a tmpfs of this size at a folder, which is created."""
    if os.geteuid() != 0:
        skip_or_fail("the right to mount", "run the tests as root")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700", "worker-test", str(folder)],
        check=True,
    )
    try:
        yield folder
    finally:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.umount2(str(folder).encode(), MNT_DETACH)


def fill(folder: Path) -> Path:
    """Write a file until the disk is full; the file."""
    file = folder / ".filling"
    piece = b"\0" * 4096
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as out:
        while out.write(piece):
            pass
    return file


@contextlib.contextmanager
def little_memory(name: str, limit_bytes: int) -> Iterator[Path]:
    """A memory control group with this limit; the file to which a process id is written."""
    if os.geteuid() != 0:
        skip_or_fail("the right to create a control group", "run the tests as root")
    if (_MEMORY_V1 / "memory.limit_in_bytes").exists():
        group, limit = _MEMORY_V1 / name, "memory.limit_in_bytes"
    elif "memory" in (_UNIFIED / "cgroup.subtree_control").read_text():
        group, limit = _UNIFIED / name, "memory.max"
    else:
        skip_or_fail("a memory control group", "mount cgroup2 with the memory controller")
    group.mkdir()
    try:
        (group / limit).write_text(str(limit_bytes))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()
