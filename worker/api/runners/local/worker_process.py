"""A worker process of the local runner: started, found again after the API's death, watched.

A worker outlives the API that started it. What tells of it is in its folder:

    lock           locked (flock(2)) by the worker for as long as it lives: it inherits the
                   descriptor, so there is no moment at which it lives and the lock is free
    events.jsonl   its events; the first is written before anything of the task starts
    stderr         what it complains about
    artifacts/     what the task leaves, result.json above all

So after the API's death a free lock says that no worker lives, and an empty events.jsonl that none
has ever begun: such a task may be started once more, and no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, Field

from worker.api.runners.protocol import TaskStatus
from worker.linux import pids_with_arguments, start_ticks
from worker.process.children import exited, send_signal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from worker.api.runners.local.store import StoredTask

EXIT_CODE_MAX: Final = 255
_POLL_S: Final = 0.05
_SEARCH_LIMIT_S: Final = 10.0
_LAST_WORDS_BYTES: Final = 2000


class Result(BaseModel):
    """`result.json`; the task could have put anything in its place."""

    status: Literal[TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.CANCELLED]
    exit_code: int = Field(ge=0, le=EXIT_CODE_MAX)
    output: Any
    error: dict[str, Any] | None
    started_at: AwareDatetime
    finished_at: AwareDatetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """What a task's worker leaves on the disk."""

    path: Path

    @property
    def lock(self) -> Path:
        """Locked while the worker lives."""
        return self.path / "lock"

    @property
    def events(self) -> Path:
        """The worker's stdout."""
        return self.path / "events.jsonl"

    @property
    def stderr(self) -> Path:
        """The worker's stderr."""
        return self.path / "stderr"

    @property
    def artifacts(self) -> Path:
        """What the task leaves."""
        return self.path / "artifacts"

    def alive(self) -> bool:
        """Whether a worker lives."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def began(self) -> bool:
        """Whether a worker has ever begun."""
        try:
            return self.events.stat().st_size > 0
        except FileNotFoundError:
            return False

    def result(self) -> Result | None:
        """`result.json`; None when there is none that a worker can have written."""
        try:
            text = (self.artifacts / "result.json").read_bytes()
            # NaN and half surrogate pairs are Python's own: JSON, and so the API, has none.
            result = json.loads(text, parse_constant=str)
            if b"\\ud" in text.lower():
                whole = json.dumps(result, ensure_ascii=False).encode(errors="replace")
                result = json.loads(whole)
            return Result.model_validate(result)
        except (OSError, ValueError, RecursionError):
            return None

    def remove_session(self) -> None:
        """Remove the temporary folder of a worker that was killed; any other has done so itself."""
        try:
            with self.events.open("rb") as file:
                session = Path(json.loads(file.readline())["folder"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        if session.parent == Path(tempfile.gettempdir()) and session.name.startswith("worker-"):
            shutil.rmtree(session, ignore_errors=True)

    def last_words(self) -> str:
        """The end of what the worker complained about."""
        try:
            with self.stderr.open("rb") as file:
                file.seek(max(0, self.stderr.stat().st_size - _LAST_WORDS_BYTES))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A living worker; `child` only when this very process started it."""

    pid: int
    started: int
    child: subprocess.Popen[bytes] | None = None

    async def ended(self) -> int | None:
        """Wait for its end; its exit code (-N: signal N), None for somebody else's child."""
        await exited(self.pid)
        return None if self.child is None else await asyncio.to_thread(self.child.wait)

    @property
    def there(self) -> bool:
        """Whether it has not gone, with its pid perhaps another's."""
        return start_ticks(self.pid) == self.started

    def cancel(self) -> None:
        """Ask for its end; nothing happens when it has gone."""
        if self.there:
            send_signal(self.pid, signal.SIGTERM)


def spawn(task: StoredTask, folder: Folder, environ: Mapping[str, str]) -> Process:
    """Start a worker that outlives this process; blocks for some milliseconds.

    Args:
        task: what to run.
        folder: where it leaves what it has to say.
        environ: its whole environment.

    Raises:
        OSError: it cannot be executed, or the folder not be written.
    """
    folder.artifacts.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "worker.cli", "run", str(task.file)]
    argv += ["--task-id", task.task_id, "--timeout-s", repr(task.timeout_s), "--port", "0"]
    argv += ["--artifacts-dir", str(folder.artifacts)]
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(folder.lock.open("wb"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        child = subprocess.Popen(
            argv,
            cwd=folder.path,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=stack.enter_context(folder.events.open("wb")),
            stderr=stack.enter_context(folder.stderr.open("wb")),
            pass_fds=[lock.fileno()],
            start_new_session=True,
        )
    return Process(pid=child.pid, started=start_ticks(child.pid) or 0, child=child)


async def find_again(task: StoredTask, folder: Folder) -> Process | None:
    """The living worker of a task that an earlier API started; None when it has just ended.

    Its pid is known, unless the API was killed between the start and the noting of it.
    """
    if task.pid is not None and task.pid_started and start_ticks(task.pid) == task.pid_started:
        return Process(pid=task.pid, started=task.pid_started)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SEARCH_LIMIT_S):
            while folder.alive():
                for pid in pids_with_arguments("--task-id", task.task_id):
                    started = start_ticks(pid)
                    if started is not None:
                        return Process(pid=pid, started=started)
                await asyncio.sleep(_POLL_S)
    return None


async def events(folder: Folder) -> AsyncIterator[dict[str, Any]]:
    """The worker's events, from the first on, as they come; ends with `worker.finished`."""
    rest = b""
    with folder.events.open("rb") as file:
        while True:
            *lines, rest = (rest + file.read()).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    yield event
                    if event.get("event") == "worker.finished":
                        return
            await asyncio.sleep(_POLL_S)
