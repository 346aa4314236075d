"""The local runner: a worker process a task on this machine, and a queue that forgets nothing."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners import files
from worker.api.runners.local.retention import DEFAULT_S, Retention
from worker.api.runners.local.store import End, Store
from worker.api.runners.local.watchdog import Watchdog
from worker.api.runners.local.worker_process import (
    Folder,
    Process,
    Result,
    events,
    find_again,
    spawn,
)
from worker.api.runners.protocol import Artifact, Cursor, TaskRecord, TaskRequest, TaskStatus
from worker.api.runners.worker_environment import passed_on
from worker.errors import SettingError
from worker.events import rfc3339
from worker.net import netloc
from worker.outcome import EXIT_SIGNAL_BASE, EXIT_SIGTERM, EXIT_TIMEOUT
from worker.settings import PREFIX

if TYPE_CHECKING:
    from worker.api.runners.local.store import StoredTask
    from worker.api.runners.protocol import StreamKey
    from worker.settings.serve import ServeSettings

_STREAM_READY: Final = "stream.ready"
_TASK_FINISHED: Final = "task.finished"
_ORPHANS_GONE_S: Final = 1.0


class LocalRunner:
    """Runs tasks as processes of this machine, so many at a time, first come, first served.

    A worker outlives the API: `close` leaves it running, and the next `open` finds it again.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        environ: Mapping[str, str],
        stream_key: StreamKey,
        max_running: int,
        queue_max: int,
        retention: Retention,
        watchdog: Watchdog | None = None,
    ) -> None:
        """Make a runner; `open` begins.

        Args:
            state_dir: where its tasks are kept.
            environ: what every worker's environment begins with.
            stream_key: a task's stream key from its id.
            max_running: so many workers at a time.
            queue_max: more queued tasks are refused.
            retention: how long an ended task is kept.
            watchdog: how long a worker may stay; default: Watchdog's own.
        """
        self._state_dir = state_dir
        self._environ = dict(environ)
        self._stream_key = stream_key
        self._max_running = max_running
        self._queue_max = queue_max
        self._retention = retention
        self._watchdog = watchdog or Watchdog()
        self._processes: dict[str, Process] = {}
        self._addresses: dict[str, str] = {}
        self._busy = 0
        self._wake = asyncio.Event()
        self._lent: set[str] = set()
        self._minding: set[asyncio.Task[None]] = set()
        self._lock: int | None = None
        self._opened: Store | None = None

    # -- its life

    async def open(self) -> None:
        """Take the state folder, find the workers of an earlier API, start what waits."""
        try:
            self._state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _take(self._state_dir)
        except OSError as error:
            raise SettingError(
                f"WORKER_STATE_DIR: cannot use {self._state_dir}: {error.strerror}"
            ) from error
        self._opened = Store(self._state_dir / "tasks.sqlite3", self._queue_max)
        for task in self._store.unfinished():
            await self._recover(task)
        self._mind(self._start_queued())
        self._mind(self._retention.run(self._store, lambda task_id: self._folder(task_id).path))

    async def close(self) -> None:
        """Stop minding; the workers run on."""
        for minding in self._minding:
            minding.cancel()
        await asyncio.gather(*self._minding, return_exceptions=True)
        for process in self._processes.values():
            if process.child is not None:
                process.child.returncode = 0  # else its finalizer complains that it still runs
        if self._opened is not None:
            await self._opened.close()
        if self._lock is not None:
            os.close(self._lock)

    async def ready(self) -> bool:
        """It is, from `open` on."""
        return self._opened is not None

    @property
    def _store(self) -> Store:
        if self._opened is None:
            raise RuntimeError("the runner is not open")
        return self._opened

    def _mind(self, work: Any) -> None:
        minding = asyncio.ensure_future(work)
        self._minding.add(minding)
        minding.add_done_callback(self._minded)

    def _minded(self, minding: asyncio.Task[None]) -> None:
        self._minding.discard(minding)
        if not minding.cancelled() and (error := minding.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a task's minder failed", "exception": error}
            )

    # -- what clients ask

    async def start(self, request: TaskRequest) -> TaskRecord:
        """Queue a task, unless it is known."""
        record = await self._store.add(request)
        self._wake.set()
        return record

    async def cancel(self, task_id: str) -> None:
        """End a task that waits; ask the worker of one that runs."""
        if await self._store.cancel_queued(task_id, _cancelled(exit_code=None)):
            return
        process = self._processes.get(task_id)
        if process is not None:
            process.cancel()

    async def find(self, account: str, task_id: str) -> TaskRecord | None:
        """A task of this account."""
        return self._store.find(account, task_id)

    async def list(
        self, account: str, *, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        """Tasks of this account, newest first."""
        return self._store.list(account, status, before, limit)

    async def counts(self) -> dict[TaskStatus, int]:
        """How many tasks are in each status."""
        return self._store.counts()

    async def stream_address(self, task_id: str) -> str | None:
        """Where the worker listens, from when it is ready until it ends."""
        return self._addresses.get(task_id)

    async def artifacts(self, task_id: str) -> Sequence[Artifact]:
        """What is in the task's folder."""
        return await asyncio.to_thread(files.listed, self._folder(task_id).artifacts)

    async def open_artifact(self, task_id: str, name: str) -> AsyncIterator[bytes] | None:
        """A file of the task's folder."""
        return files.opened(self._folder(task_id).artifacts, name)

    async def callbacks_due(self) -> Sequence[TaskRecord]:
        """Those that are owed; lent for as long as this API lives."""
        due = [each for each in self._store.callbacks_owed() if each.task_id not in self._lent]
        self._lent.update(record.task_id for record in due)
        return due

    async def callback_settled(self, task_id: str) -> None:
        """It is owed no more."""
        await self._store.callback_settled(task_id)
        self._lent.discard(task_id)

    # -- the workers

    async def _start_queued(self) -> None:
        while True:
            self._wake.clear()
            while self._busy < self._max_running and (task := await self._store.take_next()):
                self._busy += 1
                self._mind(self._run(task))
            await self._wake.wait()

    async def _run(self, task: StoredTask) -> None:
        folder = self._folder(task.task_id)
        environ = self._environ | {
            "WORKER_STREAM_KEY": self._stream_key(task.task_id).hex(),
            "WORKER_INPUTS": json.dumps(task.inputs),
        }
        try:
            # Shielded: a worker that was started must be noted, whatever happens to this API.
            process = await asyncio.shield(asyncio.to_thread(spawn, task, folder, environ))
        except OSError as error:
            await self._store.note_end(task.task_id, _never_started(str(error)))
            self._free()
            return
        await self._follow(task, folder, process)

    async def _recover(self, task: StoredTask) -> None:
        """A task that an earlier API has perhaps started: exactly once, whatever that one noted."""
        folder = self._folder(task.task_id)
        if folder.alive() and (process := await find_again(task, folder)) is not None:
            self._busy += 1
            self._mind(self._follow(task, folder, process))
        elif task.ended:
            await self._store.note_gone(task.task_id)
        elif folder.began() or folder.last_words():
            await self._store.note_end(task.task_id, _ended(folder, None, cancelled=task.cancel))
            folder.remove_session()
        elif task.cancel:
            await self._store.note_end(task.task_id, _cancelled())
        else:
            await self._store.put_back(task.task_id)

    async def _follow(self, task: StoredTask, folder: Folder, process: Process) -> None:
        """From a worker's start to its end."""
        self._processes[task.task_id] = process
        reading = asyncio.ensure_future(self._read(task, folder))
        overdue = None
        try:
            if await self._store.note_process(task.task_id, process.pid, process.started):
                process.cancel()
            if not await self._watchdog.ends_in_time(process, task.timeout_s):
                reading.cancel()  # what it says from now on, it says about our signal
                if folder.result() is None:
                    overdue = _overdue(task)
                await self._watchdog.end(process)
            returncode = await process.ended()
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            self._addresses.pop(task.task_id, None)
        self._processes.pop(task.task_id)
        cancelled = self._store.is_cancelled(task.task_id)
        end = overdue or _ended(folder, returncode, cancelled=cancelled)
        await self._store.note_end(task.task_id, end)
        await self._store.note_gone(task.task_id)
        self._free()
        await asyncio.sleep(_ORPHANS_GONE_S)  # the kernel has told the programs of a killed one
        await asyncio.to_thread(folder.remove_session)

    async def _read(self, task: StoredTask, folder: Folder) -> None:
        if task.ended:
            return
        task_id = task.task_id
        async for event in events(folder):
            if event["event"] == _STREAM_READY:
                self._addresses[task_id] = f"ws://{netloc(event['host'], event['port'])}"
                await self._store.note_running(task_id, event["time"])
            elif event["event"] == _TASK_FINISHED:
                # The result is written by now; the worker is still clearing away.
                self._addresses.pop(task_id, None)
                if (result := await asyncio.to_thread(folder.result)) is not None:
                    await self._store.note_end(task_id, _from_result(result))

    def _free(self) -> None:
        self._busy -= 1
        self._wake.set()

    def _folder(self, task_id: str) -> Folder:
        return Folder(path=self._state_dir / "tasks" / task_id)


def make(settings: ServeSettings, stream_key: StreamKey) -> LocalRunner:
    """Make the runner; `open` recovers the tasks of an earlier API."""
    return LocalRunner(
        state_dir=settings.state_dir.expanduser().absolute(),
        environ={
            **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
            **passed_on(os.environ, same_machine=True),
            # The debug page gives stream URLs without authentication; the API requires a key.
            f"{PREFIX}DEBUG_PAGE": "false",
        },
        stream_key=stream_key,
        max_running=settings.max_running,
        queue_max=settings.queue_max,
        retention=Retention(
            kept_s=DEFAULT_S if settings.retention_s is None else settings.retention_s
        ),
        watchdog=Watchdog(margin_s=Watchdog().margin_s + settings.hold_s),
    )


def _take(state_dir: Path) -> int:
    """Lock the state folder for this API."""
    descriptor = os.open(state_dir / "api.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SettingError(
            f"another `worker serve` uses {state_dir}; stop it, or set another WORKER_STATE_DIR"
        ) from None
    return descriptor


# -- how it ended


def _ended(folder: Folder, returncode: int | None, *, cancelled: bool) -> End:
    """From what a worker that is gone has left."""
    result = folder.result()
    if result is not None:
        return _from_result(result)
    if cancelled:
        return _cancelled()
    return _died(folder, returncode)


def _from_result(result: Result) -> End:
    return End(
        status=result.status,
        started_at=rfc3339(result.started_at),
        finished_at=rfc3339(result.finished_at),
        exit_code=result.exit_code,
        output=result.output,
        error=result.error,
    )


def _cancelled(exit_code: int | None = EXIT_SIGTERM) -> End:
    return End(
        status=TaskStatus.CANCELLED, finished_at=rfc3339(datetime.now(UTC)), exit_code=exit_code
    )


def _died(folder: Folder, returncode: int | None) -> End:
    how, exit_code = "ended", returncode
    if returncode is not None and returncode < 0:
        how, exit_code = f"was killed by signal {-returncode}", EXIT_SIGNAL_BASE - returncode
    said = folder.last_words()
    message = f"the worker {how} before it could write a result" + (f": {said}" if said else "")
    return _failed("WorkerDied", message, exit_code)


def _overdue(task: StoredTask) -> End:
    message = f"the worker was still there long after the task's timeout of {task.timeout_s:g} s"
    return _failed("WorkerOverdue", f"{message}, and was ended", EXIT_TIMEOUT)


def _never_started(why: str) -> End:
    return _failed("WorkerNotStarted", f"the worker could not be started: {why}", None)


def _failed(kind: str, message: str, exit_code: int | None) -> End:
    return End(
        status=TaskStatus.FAILED,
        finished_at=rfc3339(datetime.now(UTC)),
        exit_code=exit_code,
        error={"type": kind, "message": message},
    )
