"""A worker process of the local runner: starts it, and finds it again."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.api import precedence, programs
from worker.api.runners.local import channel
from worker.linux import is_process_of, pids_with_arguments, start_ticks
from worker.process.children import exited, send_signal
from worker.settings import PREFIX
from worker.surroundings import interpreter

if TYPE_CHECKING:
    from worker.api.runners.local.isolation.assignments import Launch
    from worker.api.runners.local.stored_task import StoredTask
    from worker.api.runners.local.task_folder import TaskFolder

LISTENER_FD: Final = f"{PREFIX}LISTENER_FD"
DISPLAY_FDS: Final = f"{PREFIX}DISPLAY_FDS"
_POLL_S: Final = 0.05
_START_READS: Final = 20
_SEARCH_LIMIT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcess:
    """A running worker; `child` is set only if this process started it."""

    pid: int
    started: int
    child: programs.Program | None = None

    async def ended(self) -> int | None:
        """Wait for its end; its exit code (-N: signal N), None if another process started it."""
        await exited(self.pid)
        if self.child is None:
            return None
        while (returncode := self.child.poll()) is None:  # noqa: ASYNC110 - another one traces it
            await asyncio.sleep(_POLL_S)
        return returncode

    @property
    def exists(self) -> bool:
        """Whether it still exists; its pid may have been reused since."""
        if self.child is not None:  # needs no descriptor, unlike /proc
            return self.child.poll() is None
        return start_ticks(self.pid) == self.started

    def cancel(self) -> None:
        """Send SIGTERM, if it still exists."""
        self.send(signal.SIGTERM)

    def send(self, number: int) -> None:
        """Send a signal, if it still exists."""
        if self.exists:
            send_signal(self.pid, number)


def start_worker(task: StoredTask, folder: TaskFolder, launch: Launch) -> WorkerProcess:
    """Start a worker that continues to run when this process ends; blocks for some milliseconds.

    Args:
        task: what to run.
        folder: where its output and artifacts go.
        launch: with what.

    Raises:
        OSError: it cannot be executed, or the folder cannot be written.
    """
    uid = launch.uid_number
    launch.isolation.prepare(folder, uid)
    argv = interpreter.command("worker.cli", "run", str(task.file))
    argv += ["--task-id", task.task_id, "--timeout-s", repr(task.timeout_s)]
    argv += ["--artifacts-dir", str(folder.artifacts)]
    environ = launch.isolation.environment(launch.environ, folder, uid)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(folder.lock.open("wb"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        events = channel.create(folder.events)
        stack.callback(os.close, events)
        listener, *display = launch.names.descriptors
        inherited = [lock.fileno(), listener, *display]
        child = programs.start(
            launch.isolation.command(argv, folder, uid, task.file),
            {
                **environ,
                LISTENER_FD: str(listener),
                DISPLAY_FDS: os.pathsep.join(map(str, display)),
            },
            stdin=stack.enter_context(Path(os.devnull).open("rb")).fileno(),
            stdout=events,
            stderr=stack.enter_context(folder.stderr.open("wb")).fileno(),
            inherited=[*inherited, launch.uid.lock] if launch.uid else inherited,
            folder=str(folder.home),
        )
    precedence.lower_worker(child.pid)
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
    # A task of another user may imitate the command line. Root: it is about to change its uid.
    users = (os.geteuid(),) if task.uid is None else (task.uid, 0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SEARCH_LIMIT_S):
            while folder.worker_exists():
                for pid in pids_with_arguments("--task-id", task.task_id):
                    started = start_ticks(pid)
                    if started is not None and is_process_of(pid, *users):
                        return WorkerProcess(pid=pid, started=started)
                await asyncio.sleep(_POLL_S)
    return None
