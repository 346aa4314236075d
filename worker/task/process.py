"""The task's process: started early, told to go when display and stream are ready, and stopped.

A function runs in `worker.task.child`; a COMMAND is started only when all is ready, since nothing
of it can be loaded in advance.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from worker import outcome
from worker.errors import StartFailed
from worker.outcome import Outcome, TaskError
from worker.task.child import OUTPUT_MAX_BYTES
from worker.task.target import Command

if TYPE_CHECKING:
    from pathlib import Path

    from worker.process.children import Child, Children
    from worker.task.spec import StartedChild, TaskSpec

GRACE_S: Final = 3.0
_LINE_MAX_BYTES: Final = 2 * OUTPUT_MAX_BYTES
_CHUNK_BYTES: Final = 65536
_LOG_END_S: Final = 1.0


class Task(Protocol):
    """One task's process."""

    async def prepare(self, display: str, xauthority: str) -> None:
        """The display is there: return when nothing but the word to go is missing."""

    async def go(self) -> None:
        """Let the task's own code start."""

    async def ended(self) -> Outcome:
        """Wait until it has ended, and how."""

    async def stop(self) -> None:
        """End the process: it may clean up for a moment, then it is killed."""


class FunctionTask:
    """A Python function, in a process of its own."""

    def __init__(self, job: TaskSpec, host: StartedChild, children: Children) -> None:
        self._host = host
        self._child = children.adopt(host.process)
        self._log = _Log(self._child, job.log)
        self._finished = False
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> None:
        """Take over the socket, with what of the job it has not taken yet."""
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=self._host.socket, limit=_LINE_MAX_BYTES
        )
        self._writer.write(self._host.unsent)

    async def prepare(self, display: str, xauthority: str) -> None:
        """Launch the browser on the display.

        Raises:
            StartFailed: the browser, or the process itself, did not start.
        """
        self._say("display", display=display, xauthority=xauthority)
        await self._expect("ready")

    async def go(self) -> None:
        """Call the function; returns when it can be stopped, too.

        Raises:
            StartFailed: the process ended.
        """
        self._say("go")
        await self._expect("started")

    async def ended(self) -> Outcome:
        """Wait for the function's end.

        Raises:
            StartFailed: its browser could not be launched.
        """
        message = await self._hear()
        self._finished = True
        match message:
            case {"kind": "result", "output": output}:
                return outcome.success(output)
            case {"kind": "error", "type": type_, "message": text, "traceback": frames}:
                return outcome.raised(TaskError(type=type_, message=text, traceback=frames))
            case {"kind": "broken", "message": text}:
                raise StartFailed("chromium", str(text))
        return await self._without_result()

    async def stop(self) -> None:
        """Let a finished host close its browser; stop another one; kill what is left."""
        if self._finished:
            self._say("quit")
        elif self._child.running:
            os.kill(self._child.pid, signal.SIGTERM)  # the host alone: its browser still serves
        try:
            async with asyncio.timeout(GRACE_S):
                if not self._finished:
                    await self._hear()  # what the function said when it was stopped
                    self._say("quit")
                await self._child.wait()
        except TimeoutError:
            pass
        await self._child.stop(0)
        self._writer.close()
        await self._log.end()

    async def _expect(self, kind: str) -> None:
        message = await self._hear()
        if message is None:
            code = await self._child.wait()
            await self._log.end()
            raise StartFailed("the task's process", f"it ended with {code}", self._log.last_words)
        if message["kind"] == "broken":
            raise StartFailed("chromium", _first_line(message["message"]))
        if message["kind"] != kind:
            raise StartFailed("the task's process", f"it said {message['kind']} too early")

    async def _without_result(self) -> Outcome:
        code = await self._child.wait()
        if code == 0:
            message = "the task's process ended without a result"
            return outcome.raised(TaskError(type="Exited", message=message))
        return outcome.exited(code)

    def _say(self, kind: str, **fields: Any) -> None:
        self._writer.write(json.dumps({"kind": kind, **fields}).encode() + b"\n")

    async def _hear(self) -> dict[str, Any] | None:
        try:
            line = await self._reader.readline()
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message


class CommandTask:
    """Any program; it launches its own browser."""

    def __init__(self, target: Command, job: TaskSpec, children: Children) -> None:
        self._target, self._job, self._children = target, job, children
        self._child: Child | None = None
        self._log: _Log | None = None
        self._environ: dict[str, str] = {}
        self._failed: Outcome

    async def prepare(self, display: str, xauthority: str) -> None:
        """Nothing of it can be loaded in advance."""
        self._environ = {**self._job.environ, "DISPLAY": display, "XAUTHORITY": xauthority}

    async def go(self) -> None:
        """Start it."""
        try:
            self._child = self._children.spawn(
                self._target.argv, env=self._environ, death_signal=signal.SIGKILL
            )
        except OSError as error:
            message = f"cannot execute {self._target.argv[0]}: {error.strerror}"
            self._failed = outcome.raised(TaskError(type="OSError", message=message))
            return
        self._log = _Log(self._child, self._job.log)

    async def ended(self) -> Outcome:
        """Wait for its exit."""
        if self._child is None:
            return self._failed
        return outcome.exited(await self._child.wait())

    async def stop(self) -> None:
        """TERM to its group, a bounded wait, KILL."""
        if self._child is not None:
            await self._child.stop(GRACE_S)
        if self._log is not None:
            await self._log.end()


async def start(job: TaskSpec, host: StartedChild | None, children: Children) -> Task:
    """Take over what was launched already; a COMMAND is started when there is a display."""
    if isinstance(job.target, Command):
        return CommandTask(job.target, job, children)
    if host is None:
        raise StartFailed("the task's process", "it was not launched")
    task = FunctionTask(job, host, children)
    await task.connect()
    return task


class _Log:
    """Copies a process's output to `task.log` and stderr, in a thread: stderr may block."""

    def __init__(self, child: Child, path: Path) -> None:
        self.last_words = ""
        self._done = asyncio.Event()
        loop = asyncio.get_running_loop()
        if child.stdout is None:
            raise ValueError("the child's output is not a pipe")
        source = child.stdout

        def copy() -> None:
            with source, path.open("ab") as log:
                while chunk := os.read(source.fileno(), _CHUNK_BYTES):
                    _write(log, chunk)
                    _write(sys.stderr.buffer, chunk)
                    self.last_words = chunk.decode(errors="replace").strip()[-300:]
            try:
                loop.call_soon_threadsafe(self._done.set)
            except RuntimeError:
                return  # the loop is closed

        threading.Thread(target=copy, name="task.log", daemon=True).start()

    async def end(self) -> None:
        """Wait for the last line; not for long, since a stray process may hold the pipe."""
        try:
            async with asyncio.timeout(_LOG_END_S):
                await self._done.wait()
        except TimeoutError:
            return


def _write(file: IO[bytes], chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except (OSError, ValueError):
        return  # a full disk or a closed terminal must not end the task


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
