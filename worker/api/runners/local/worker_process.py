"""A worker process of the local runner: starts it, finds it again, reads its events."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from worker.linux import pids_with_arguments, start_ticks
from worker.process.children import exited, send_signal
from worker.surroundings import interpreter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from worker.api.runners.local.stored_task import StoredTask
    from worker.api.runners.local.task_folder import TaskFolder

_POLL_S: Final = 0.05
_START_READS: Final = 20
_SEARCH_LIMIT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcess:
    """A running worker; `child` is set only if this process started it."""

    pid: int
    started: int
    child: subprocess.Popen[bytes] | None = None

    async def ended(self) -> int | None:
        """Wait for its end; its exit code (-N: signal N), None if another process started it."""
        await exited(self.pid)
        return None if self.child is None else await asyncio.to_thread(self.child.wait)

    @property
    def exists(self) -> bool:
        """Whether it still exists; its pid may have been reused since."""
        if self.child is not None:  # needs no descriptor, unlike /proc
            return self.child.poll() is None
        return start_ticks(self.pid) == self.started

    def cancel(self) -> None:
        """Send SIGTERM, if it still exists."""
        if self.exists:
            send_signal(self.pid, signal.SIGTERM)


def start_worker(task: StoredTask, folder: TaskFolder, environ: Mapping[str, str]) -> WorkerProcess:
    """Start a worker that continues to run when this process ends; blocks for some milliseconds.

    Args:
        task: what to run.
        folder: where its output and artifacts go.
        environ: its whole environment.

    Raises:
        OSError: it cannot be executed, or the folder cannot be written.
    """
    folder.artifacts.mkdir(parents=True, exist_ok=True)
    argv = interpreter.command("worker.cli", "run", str(task.file))
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
    return WorkerProcess(pid=child.pid, started=_started(child.pid), child=child)


def _started(pid: int) -> int:
    """The start of a child that is not reaped yet, in clock ticks.

    It never raises: the worker runs, and must not be started again. If /proc cannot be read, for
    lack of a descriptor, it returns the present time; `find_worker` then finds the worker by its
    lock.
    """
    for _ in range(_START_READS):
        if (ticks := start_ticks(pid)) is not None:
            return ticks
        time.sleep(_POLL_S)
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


async def find_worker(task: StoredTask, folder: TaskFolder) -> WorkerProcess | None:
    """The running worker of a task that an earlier API process started; None if it has ended.

    Its pid is stored, unless that process was killed between starting the worker and storing it.
    """
    if task.pid is not None and task.pid_started and start_ticks(task.pid) == task.pid_started:
        return WorkerProcess(pid=task.pid, started=task.pid_started)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SEARCH_LIMIT_S):
            while folder.worker_exists():
                for pid in pids_with_arguments("--task-id", task.task_id):
                    started = start_ticks(pid)
                    if started is not None:
                        return WorkerProcess(pid=pid, started=started)
                await asyncio.sleep(_POLL_S)
    return None


async def events(folder: TaskFolder) -> AsyncIterator[dict[str, Any]]:
    """The worker's events, from the first on; ends after `worker.finished`."""
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
