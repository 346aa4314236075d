"""Events: one JSON object a line on stdout, or a readable form of it on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    import asyncio


_DIM: Final = "\x1b[2m"
_BOLD: Final = "\x1b[1m"
_RESET: Final = "\x1b[0m"
_NAME_WIDTH: Final = 22
_WAITING_MAX_BYTES: Final = 1 << 20
_MS: Final = 1000
# Control characters of terminals, line separators, and half surrogate pairs, which have no UTF-8:
# fields hold text from viewers and web pages too.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Events:
    """The event log of one task, or (without a task id) of the API.

    Events are dropped if the stream is closed, full or not read: that must not affect the task.
    """

    def __init__(self, task_id: str | None, stream: TextIO | None = None) -> None:
        self._task_id = task_id
        self._stream = sys.stdout if stream is None else stream
        self._is_terminal = self._stream.isatty()
        self._output = _output(self._stream)

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event.

        Args:
            event: `noun.past_tense`, for example `viewer.connected`.
            fields: JSON values, with units in their names.
        """
        now = datetime.now(UTC)
        if self._is_terminal:
            line = self._readable(now, event, fields)
        else:
            task = {} if self._task_id is None else {"task_id": self._task_id}
            record = {"time": rfc3339(now), "event": event, **task, **fields}
            line = _CONTROL.sub(_escaped, json.dumps(record, ensure_ascii=False, default=str))
        self._write(line + "\n")

    def flush(self, limit_s: float) -> None:
        """Write events that wait for a slow reader, for a limited time."""
        if self._output is not None:
            self._output.flush(limit_s)

    def _write(self, line: str) -> None:
        if self._output is not None:
            self._output.write(line.encode(errors="backslashreplace"))
            return
        with contextlib.suppress(OSError, ValueError):  # the stream is closed
            self._stream.write(line)
            self._stream.flush()

    @staticmethod
    def _readable(now: datetime, event: str, fields: dict[str, Any]) -> str:
        clock = now.astimezone().strftime("%H:%M:%S.%f")[:-3]
        text = "  ".join(
            f"{_DIM}{name}{_RESET} {_CONTROL.sub(_escaped, str(value))}"
            for name, value in fields.items()
        )
        return f"{_DIM}{clock}{_RESET}  {_BOLD}{event:<{_NAME_WIDTH}}{_RESET}{text}"


class _LineOutput:
    """Writes lines to a descriptor without waiting for its reader.

    Lines that the reader does not read yet wait in memory; further ones are dropped at a limit.

    Lines are dropped, too, when they cannot be written: the reader has ended, or the disk is full.
    What is written stays a sequence of whole lines, except for the last one before such a failure.
    It can be used by several threads; one that runs an event loop writes what waits as soon as the
    reader reads again, any other one at its next call.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._waiting = b""
        self._is_cut = False  # an unfinished line was written, and its rest dropped
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Write a line, or let it wait.

        Args:
            line: with its line break.
        """
        with self._lock:
            if not self._waiting or len(self._waiting) + len(line) <= _WAITING_MAX_BYTES:
                self._waiting += b"\n" + line if self._is_cut and not self._waiting else line
            self._write_waiting(0)
            waits = bool(self._waiting)
        if waits:
            self._continue_later()

    def flush(self, limit_s: float) -> None:
        """Write what waits, for a limited time."""
        with self._lock:
            self._write_waiting(limit_s)

    def _write_waiting(self, limit_s: float) -> None:
        """Write in portions that do not block: a pipe that is ready takes that many bytes."""
        deadline = time.monotonic() + limit_s
        while self._waiting and self._poll.poll(max(0.0, deadline - time.monotonic()) * _MS):
            end = self._waiting.rfind(b"\n", 0, select.PIPE_BUF) + 1
            portion = self._waiting[: end or select.PIPE_BUF]  # whole lines, if they are short
            try:
                written = os.write(self._descriptor, portion)
            except BlockingIOError:
                return
            except OSError:
                self._waiting = b""
                return
            self._is_cut = not portion[:written].endswith(b"\n")
            self._waiting = self._waiting[written:]

    def _continue_later(self) -> None:
        import asyncio  # noqa: PLC0415 - imported already where there is a loop

        with contextlib.suppress(RuntimeError, OSError):  # no loop, or not a pipe or terminal
            loop = asyncio.get_running_loop()
            loop.add_writer(self._descriptor, self._resume, loop)

    def _resume(self, loop: asyncio.AbstractEventLoop) -> None:
        self.flush(0)
        if not self._waiting:
            loop.remove_writer(self._descriptor)


def _output(stream: TextIO) -> _LineOutput | None:
    """The output to a stream's descriptor; None for a stream in memory."""
    try:
        return _LineOutput(stream.fileno())
    except (OSError, ValueError):
        return None


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def rfc3339(moment: datetime) -> str:
    """Format a time as RFC 3339 in UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
