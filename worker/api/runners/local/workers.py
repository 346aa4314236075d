"""The workers of the local runner: started from the queue and followed to their end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING, Final

from worker import net
from worker.api.runners.background import BackgroundTasks
from worker.api.runners.local import channel, task_end
from worker.api.runners.local.isolation.uids import NoFreeUid
from worker.api.runners.local.task_folder import TaskFolder
from worker.api.runners.local.worker_process import (
    Launch,
    WorkerProcess,
    find_worker,
    start_worker,
)
from worker.errors import PortInUse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from worker.api.runners.local.channel import Event
    from worker.api.runners.local.isolation.mechanism import Isolation
    from worker.api.runners.local.store import Store
    from worker.api.runners.local.stored_task import StoredTask
    from worker.api.runners.local.watchdog import Watchdog
    from worker.api.runners.protocol import StreamKey

_STREAM_READY: Final = "stream.ready"
_TASK_FINISHED: Final = "task.finished"
_ORPHANS_GONE_S: Final = 1.0
_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 128


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
        isolation: Isolation,
    ) -> None:
        self._store = store
        self._tasks_dir = tasks_dir
        self._environ = dict(environ)
        self._stream_key = stream_key
        self._max_running = max_running
        self._watchdog = watchdog
        self._isolation = isolation
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
            launch = await self._assign(task, environ)
        except (OSError, NoFreeUid, PortInUse) as error:
            await self._fail_to_start(task, error)
            return
        task = dataclasses.replace(task, port=launch.port, uid=launch.uid_number)
        try:
            # Shielded: a worker that was started must not be abandoned half-way by `close`.
            process = await asyncio.shield(asyncio.to_thread(start_worker, task, folder, launch))
        except OSError as error:
            await self._fail_to_start(task, error)
            return
        await self._follow(task, folder, process)

    async def _assign(self, task: StoredTask, environ: Mapping[str, str]) -> Launch:
        """Choose a worker's user and address, and store them before it is started.

        Viewers are sent to this address, whatever the worker's output contains.
        """
        uid = None
        if self._isolation.assigns_uids:
            uid = await asyncio.to_thread(self._isolation.take_uid, self._store.uids())
        listener = net.listen(_HOST, 0, backlog=_BACKLOG)
        launch = Launch(environ=environ, isolation=self._isolation, uid=uid, listener=listener)
        await self._store.save_start(task.task_id, port=launch.port, uid=launch.uid_number)
        return launch

    async def _fail_to_start(self, task: StoredTask, error: Exception) -> None:
        await self._store.mark_ended(task.task_id, task_end.not_started(str(error)))
        self._free()
        await self._clean_up(task)

    async def _clean_up(self, task: StoredTask) -> None:
        """Kill what is left of a task's own user, and take over its files."""
        if task.uid is None:
            return
        folder = self.folder(task.task_id)
        if await asyncio.to_thread(self._isolation.clean_up, folder, task.uid):
            await self._store.mark_cleaned_up(task.task_id)

    async def _recover(self, task: StoredTask) -> None:
        """Continue a task that an earlier API process may have started; it runs exactly once."""
        task_id, folder = task.task_id, self.folder(task.task_id)
        if folder.worker_exists() and (process := await find_worker(task, folder)) is not None:
            self._running += 1
            self._background.start(self._follow(task, folder, process))
            return
        if task.ended:
            await self._store.mark_worker_gone(task_id)
        elif folder.has_events() or folder.stderr_tail():
            end = task_end.of_ended_worker(folder, None, was_cancelled=task.cancel)
            await self._store.mark_ended(task_id, end)
            folder.remove_session()
        elif task.cancel:
            await self._store.mark_ended(task_id, task_end.cancelled())
        else:
            await self._clean_up(task)
            await self._store.requeue(task_id)
            return
        self._background.start(self._clean_up(task))

    async def _follow(self, task: StoredTask, folder: TaskFolder, process: WorkerProcess) -> None:
        """From a worker's start to its end."""
        task_id = task.task_id
        self._processes[task_id] = process
        reading = asyncio.ensure_future(self._read_events(task, folder))
        overdue = None
        try:
            if await self._store.save_process(task_id, process.pid, process.started):
                process.cancel()
            if not await self._watchdog.ends_in_time(process, task.timeout_s):
                reading.cancel()  # later events would describe the watchdog's signal
                if folder.result() is None:
                    overdue = task_end.overdue(task)
                await self._watchdog.end(process)
            returncode = await process.ended()
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            self._addresses.pop(task_id, None)
        self._processes.pop(task_id)
        was_cancelled = self._store.is_cancelled(task_id)
        end = overdue or task_end.of_ended_worker(folder, returncode, was_cancelled=was_cancelled)
        await self._store.mark_ended(task_id, end)
        await self._store.mark_worker_gone(task_id)
        self._free()
        if task.uid is not None:
            await self._clean_up(task)
            return
        await asyncio.sleep(_ORPHANS_GONE_S)  # a killed worker's programs end by a kernel signal
        await asyncio.to_thread(folder.remove_session)

    async def _read_events(self, task: StoredTask, folder: TaskFolder) -> None:
        if task.ended:
            return
        with contextlib.suppress(OSError):
            async for event in channel.events(folder.events):
                await self._on_event(task, folder, event)

    async def _on_event(self, task: StoredTask, folder: TaskFolder, event: Event) -> None:
        if event.name == _STREAM_READY:
            if task.port is not None:
                self._addresses[task.task_id] = f"ws://{net.netloc(_HOST, task.port)}"
            await self._store.mark_running(task.task_id, event.time)
        elif event.name == _TASK_FINISHED:
            # The result is complete; the worker is still cleaning up.
            self._addresses.pop(task.task_id, None)
            if (result := await asyncio.to_thread(folder.result)) is not None:
                await self._store.mark_ended(task.task_id, task_end.from_result(result))

    def _free(self) -> None:
        self._running -= 1
        self._woken.set()
