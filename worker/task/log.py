"""The task's log: a process's output, copied to `task.log` and to stderr."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from typing import IO, TYPE_CHECKING, Final

from worker import artifacts

if TYPE_CHECKING:
    from pathlib import Path

    from worker.process.children import Child

_CHUNK_BYTES: Final = 65536
_TAIL_CHARS: Final = 300
END_TIMEOUT_S: Final = 1.0


class TaskLog:
    """Copies a process's output until it ends, in a thread: writing to stderr may block.

    Attributes:
        output_tail: the last characters of the output.
    """

    def __init__(self, child: Child, path: Path, max_bytes: int) -> None:
        if child.stdout is None:
            raise ValueError("the child's output is not a pipe")
        self.output_tail = ""
        self._source, self._path, self._left_bytes = child.stdout, path, max_bytes
        self._cut = f"\nworker: the output exceeds {max_bytes} bytes; the rest is not recorded\n"
        self._done = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._copy, name="task.log", daemon=True).start()

    async def wait_for_end(self) -> None:
        """Wait, at most 1 s, until all output is copied: another process may hold the pipe."""
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._done.wait()
        except TimeoutError:
            return

    def _copy(self) -> None:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(self._source)
            outputs = [sys.stderr.buffer]
            with contextlib.suppress(OSError):  # without its log the task can still run
                outputs.insert(0, stack.enter_context(artifacts.open_log(self._path)))
            while chunk := os.read(source.fileno(), _CHUNK_BYTES):
                if recorded := self._within_limit(chunk):
                    for output in outputs:
                        _write(output, recorded)
                self.output_tail = chunk.decode(errors="replace").strip()[-_TAIL_CHARS:]
        try:
            self._loop.call_soon_threadsafe(self._done.set)
        except RuntimeError:
            return  # the loop is closed

    def _within_limit(self, chunk: bytes) -> bytes:
        """What is recorded of a chunk; the last part ends with a line that states the limit."""
        if self._left_bytes < 0:
            return b""
        recorded = chunk[: self._left_bytes]
        self._left_bytes -= len(chunk)
        return recorded if self._left_bytes >= 0 else recorded + self._cut.encode()


def _write(file: IO[bytes], chunk: bytes) -> None:
    left = memoryview(chunk)
    try:
        while left and (written := file.write(left)):  # unbuffered: it may write a part
            left = left[written:]
        file.flush()
    except (OSError, ValueError):
        return  # a full disk or a closed terminal must not end the task
