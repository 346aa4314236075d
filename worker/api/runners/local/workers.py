"""The workers of the local runner: started from the queue and followed to their end."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners.background import BackgroundTasks
from worker.api.runners.local import task_end
from worker.api.runners.local.task_folder import TaskFolder
from worker.api.runners.local.worker_process import (
    WorkerProcess,
    events,
    find_worker,
    start_worker,
)
from worker.net import netloc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from worker.api.runners.local.store import Store
    from worker.api.runners.local.stored_task import StoredTask, TaskEnd
    from worker.api.runners.local.watchdog import Watchdog
    from worker.api.runners.protocol import StreamKey

_STREAM_READY: Final = "stream.ready"
_TASK_FINISHED: Final = "task.finished"
_ORPHANS_GONE_S: Final = 1.0


class Workers:
    """Runs the store's tasks, at most `max_running` at a time."""

    def __init__(
        self,
        store: Store,
        tasks_dir: Path,
        *,
        environ: Mapping[str, str],
        stream_key: StreamKey,
        max_running: int,
        watchdog: Watchdog,
    ) -> None:
        self._store = store
        self._tasks_dir = tasks_dir
        self._environ = dict(environ)
        self._stream_key = stream_key
        self._max_running = max_running
        self._watchdog = watchdog
        self._processes: dict[str, WorkerProcess] = {}
        self._addresses: dict[str, str] = {}
        self._running = 0
        self._woken = asyncio.Event()
        self._background = BackgroundTasks()

    async def open(self) -> None:
        """Find the workers of an earlier API process, and begin to start queued tasks."""
        for task in self._store.unfinished():
            await self._recover(task)
        self._background.start(self._start_queued())

    async def close(self) -> None:
        """End; the workers continue to run."""
        await self._background.cancel()
        for process in self._processes.values():
            if process.child is not None:
                process.child.returncode = 0  # Popen's finalizer warns about a running child

    def wake(self) -> None:
        """Start queued tasks now, if there is room."""
        self._woken.set()

    def cancel(self, task_id: str) -> None:
        """Send SIGTERM to a task's worker, if there is one."""
        process = self._processes.get(task_id)
        if process is not None:
            process.cancel()

    def address(self, task_id: str) -> str | None:
        """`ws://host:port` of a worker from `stream.ready` until its task's end."""
        return self._addresses.get(task_id)

    def folder(self, task_id: str) -> TaskFolder:
        """A task's folder."""
        return TaskFolder(path=self._tasks_dir / task_id)

    async def _start_queued(self) -> None:
        while True:
            self._woken.clear()
            while self._running < self._max_running and (task := await self._store.take_next()):
                self._running += 1
                self._background.start(self._run(task))
            await self._woken.wait()

    async def _run(self, task: StoredTask) -> None:
        folder = self.folder(task.task_id)
        environ = self._environ | {
            "WORKER_STREAM_KEY": self._stream_key(task.task_id).hex(),
            "WORKER_INPUTS": json.dumps(task.inputs),
        }
        try:
            # Shielded: a worker that was started must not be abandoned half-way by `close`.
            process = await asyncio.shield(asyncio.to_thread(start_worker, task, folder, environ))
        except OSError as error:
            await self._store.mark_ended(task.task_id, task_end.not_started(str(error)))
            self._free()
            return
        await self._follow(task, folder, process)

    async def _recover(self, task: StoredTask) -> None:
        """Continue a task that an earlier API process may have started; it runs exactly once."""
        task_id, folder = task.task_id, self.folder(task.task_id)
        if folder.worker_exists() and (process := await find_worker(task, folder)) is not None:
            self._running += 1
            self._background.start(self._follow(task, folder, process))
        elif task.ended:
            await self._store.mark_worker_gone(task_id)
        elif folder.has_events() or folder.stderr_tail():
            end = await asyncio.to_thread(
                task_end.of_ended_worker, folder, None, was_cancelled=task.cancel
            )
            await self._store.mark_ended(task_id, end)
            await asyncio.to_thread(folder.remove_session)
        elif task.cancel:
            await self._store.mark_ended(task_id, task_end.cancelled())
        else:
            await self._store.requeue(task_id)

    async def _follow(self, task: StoredTask, folder: TaskFolder, process: WorkerProcess) -> None:
        """From a worker's start to its end."""
        task_id = task.task_id
        self._processes[task_id] = process
        reading = asyncio.ensure_future(self._read_events(task, folder))
        end: TaskEnd | None = None
        try:
            if await self._store.save_process(task_id, process.pid, process.started):
                process.cancel()
            if not await self._watchdog.ends_in_time(process, task.timeout_s):
                reading.cancel()  # later events would describe the watchdog's signal
                end = task_end.overdue(task)  # not stored if the worker reported an end before
                await self._watchdog.end(process)
            returncode = await process.ended()
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            self._addresses.pop(task_id, None)
        self._processes.pop(task_id)
        was_cancelled = self._store.is_cancelled(task_id)
        if end is None:
            end = await asyncio.to_thread(
                task_end.of_ended_worker, folder, returncode, was_cancelled=was_cancelled
            )
        await self._store.mark_ended(task_id, end)
        await self._store.mark_worker_gone(task_id)
        self._free()
        await asyncio.sleep(_ORPHANS_GONE_S)  # a killed worker's programs end by a kernel signal
        await asyncio.to_thread(folder.remove_session)

    async def _read_events(self, task: StoredTask, folder: TaskFolder) -> None:
        if task.ended:
            return
        async for event in events(folder):
            await self._on_event(task.task_id, folder, event)

    async def _on_event(self, task_id: str, folder: TaskFolder, event: dict[str, Any]) -> None:
        if event["event"] == _STREAM_READY:
            self._addresses[task_id] = f"ws://{netloc(event['host'], event['port'])}"
            await self._store.mark_running(task_id, event["time"])
        elif event["event"] == _TASK_FINISHED:
            # The result is complete; the worker is still cleaning up.
            self._addresses.pop(task_id, None)
            end = await asyncio.to_thread(task_end.of_finished_task, folder, event)
            if end is not None:
                await self._store.mark_ended(task_id, end)

    def _free(self) -> None:
        self._running -= 1
        self._woken.set()
