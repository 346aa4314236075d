"""The state channel of a worker: its events, in a file that its task cannot open.

This process creates the file and passes its descriptor as the worker's stdout. What is read from it
is validated and bounded all the same: the worker of an older version may have written it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from worker import linux
from worker.events import rfc3339

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

TASK_STARTING: Final = "task.starting"
"""The event that precedes the first instruction of the task's code."""
LINE_MAX_BYTES: Final = 64 << 10
"""A longer line is skipped."""
FILE_MAX_BYTES: Final = 64 << 20
"""Nothing is read beyond; then the task's end is known from the worker's exit."""
_CHUNK_BYTES: Final = 64 << 10
_RESERVED_BYTES: Final = 64 << 10
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event of a worker; `time` is RFC 3339 text."""

    name: str
    time: str
    fields: dict[str, Any]


def create(path: Path) -> int:
    """Create the file, to be appended to; returns its descriptor.

    It has room for the first events, so that a disk that becomes full does not lose them.

    Raises:
        OSError: it cannot be created.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        linux.reserve(descriptor, _RESERVED_BYTES)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def has_event(path: Path, name: str) -> bool:
    """Whether an event of this name is among the first ones of a file.

    Raises:
        OSError: the file cannot be opened.
    """
    with _open(path) as file:
        lines = _Lines().split(file.read(_RESERVED_BYTES))
        return any((event := parse(line)) is not None and event.name == name for line in lines)


class _Lines:
    """Splits the bytes of a file into lines; holds at most one line of LINE_MAX_BYTES."""

    def __init__(self) -> None:
        self._rest = b""
        self._too_long = False

    def split(self, chunk: bytes) -> Iterator[bytes]:
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            whole, skip = self._rest + line, self._too_long
            self._rest, self._too_long = b"", False
            if not skip and len(whole) <= LINE_MAX_BYTES:
                yield whole
        if self._too_long or len(self._rest) + len(rest) > LINE_MAX_BYTES:
            self._rest, self._too_long = b"", True
        else:
            self._rest += rest


async def events(path: Path) -> AsyncIterator[Event]:
    """A worker's events, from the first on; ends after `worker.finished`, or at FILE_MAX_BYTES.

    Raises:
        OSError: the file cannot be opened.
    """
    lines, read_bytes = _Lines(), 0
    with _open(path) as file:
        while read_bytes < FILE_MAX_BYTES:
            chunk = file.read(_CHUNK_BYTES)
            read_bytes += len(chunk)
            for line in lines.split(chunk):
                event = parse(line)
                if event is not None:
                    yield event
                    if event.name == "worker.finished":
                        return
            # Also after a full chunk: a large file must not block the other tasks.
            await asyncio.sleep(0 if len(chunk) == _CHUNK_BYTES else _POLL_S)


def _open(path: Path) -> BinaryIO:
    """Open a regular file; where tasks are not isolated, one may have put anything in its place."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb", buffering=0)  # noqa: PTH123 - a descriptor


def parse(line: bytes) -> Event | None:
    """An event from a line; None if the line is not one."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    name, time = fields.get("event"), fields.get("time")
    if not isinstance(name, str) or not isinstance(time, str):
        return None
    try:
        return Event(name=name, time=rfc3339(datetime.fromisoformat(time)), fields=fields)
    except (ValueError, OverflowError):
        return None
