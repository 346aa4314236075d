"""The workers of the local runner: started from the queue and followed to their end.

A task takes a slot before its worker is started and frees it when its end is stored. An error of
the machine (`machine_faults`) delays that work until it succeeds; any other error ends the task,
and the worker if it still runs.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import signal
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from worker.api.runners.background import BackgroundTasks, Loops, back_off_s
from worker.api.runners.local import channel, task_end
from worker.api.runners.local.disk import room
from worker.api.runners.local.isolation.assignments import Assignments, address, assigned
from worker.api.runners.local.isolation.reservations import NoNames, Reservations
from worker.api.runners.local.isolation.uids import NoFreeUid
from worker.api.runners.local.task_folder import TaskFolder
from worker.api.runners.local.worker_process import (
    WorkerProcess,
    find_worker,
    start_worker,
)
from worker.api.runners.machine_faults import describe, is_machine_fault
from worker.api.runners.threads import SharedThreads, Threads
from worker.outcome import DISK_FULL_SIGNAL, EXIT_SESSION_LOST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from worker.api.runners.local.channel import Event
    from worker.api.runners.local.store import Store
    from worker.api.runners.local.stored_task import StoredTask, TaskEnd
    from worker.api.runners.local.watchdog import Watchdog

T = TypeVar("T")

QUEUE: Final = "queue"
FOLLOWING: Final = "following"
RECOVERY: Final = "recovery"
RESERVATION: Final = "reservation"
_STREAM_READY: Final = "stream.ready"
_TASK_FINISHED: Final = "task.finished"
_ORPHANS_GONE_S: Final = 1.0
_STARTS_MAX: Final = 3
_THREADS: Final = 16
_KILL_THREADS: Final = 8
_PER_ACCOUNT: Final = 2
_RECOVERY_WAIT_S: Final = 15.0
"""Longer than the search for one worker; after it the API accepts requests all the same."""


class Workers:
    """Runs the store's tasks, at most `max_running` at a time."""

    def __init__(
        self,
        store: Store,
        tasks_dir: Path,
        *,
        max_running: int,
        watchdog: Watchdog,
        loops: Loops,
        assignments: Assignments,
        reservations: Reservations,
    ) -> None:
        self._store = store
        self._tasks_dir = tasks_dir
        self._max_running = max_running
        self._watchdog = watchdog
        self._loops = loops
        self._assignments = assignments
        self._reservations = reservations
        self._processes: dict[str, tuple[StoredTask, WorkerProcess]] = {}
        self._addresses: dict[str, str] = {}
        self._full: dict[str, str] = {}
        self._failed_starts: Counter[str] = Counter()
        self._recovering: Counter[str] = Counter()
        """How many tasks of each account are being searched for; it starts no other one meanwhile,
        so that those that are queued again keep their places."""
        self._running = 0
        self._woken = asyncio.Event()
        self._background = BackgroundTasks(loops)
        self._starting = Threads(1, "start")
        self._reading = SharedThreads(_THREADS, _PER_ACCOUNT, "follow")
        self._killing = SharedThreads(_KILL_THREADS, _PER_ACCOUNT, "kill")

    async def open(self) -> None:
        """Find the workers of an earlier API process, and begin to start queued tasks."""
        invalid = self._store.unreadable()
        tasks = self._store.unfinished()
        await self._reservations.open(self.wake)
        self._background.repeat(RESERVATION, self._reservations.fill, self._reservations.wanted)
        self._running += len(tasks)
        self._recovering.update(task.account for task in tasks)
        recovering = [self._background.start(self._recover(task)) for task in tasks]
        for row in invalid:
            self._loops.skipped(RECOVERY, str(row.number), row)
            self._background.start(self._store.end_unreadable(row))
        if recovering:
            await asyncio.wait(recovering, timeout=_RECOVERY_WAIT_S)
        self._background.repeat(QUEUE, self._start_queued, self._woken.wait)

    async def close(self) -> None:
        """End; the workers continue to run."""
        await self._background.cancel()
        self._starting.join()  # no start is abandoned half-way
        self._reading.close()
        self._killing.close()
        self._assignments.close()
        self._reservations.close()

    def wake(self) -> None:
        """Start queued tasks now, if there is room."""
        self._woken.set()

    def cancel(self, task_id: str) -> None:
        """Send SIGTERM to a task's worker, if there is one."""
        if task_id in self._processes:
            self._processes[task_id][1].cancel()

    def end_full(self, task_id: str, why: str) -> bool:
        """End a running task because of what its account's files occupy.

        Args:
            task_id: of the task.
            why: for the task's error.

        Returns:
            False if the task has no running worker.
        """
        if task_id not in self._processes:
            return False
        if task_id not in self._full:
            self._full[task_id] = why
            self._background.start(self._end(*self._processes[task_id], DISK_FULL_SIGNAL))
        return True

    def kill(self, task_id: str) -> None:
        """Kill a task's worker with all its processes."""
        if task_id in self._processes:
            task, process = self._processes[task_id]
            run = partial(self._killing.call, task.account)
            self._background.start(self._watchdog.kill(process, run=run))

    async def _end(
        self, task: StoredTask, process: WorkerProcess, number: int = signal.SIGTERM
    ) -> None:
        run = partial(self._killing.call, task.account)
        await self._watchdog.end(process, number, run=run)

    def address(self, task_id: str) -> str | None:
        """`ws://host:port` of a worker from `stream.ready` until its task's end."""
        return self._addresses.get(task_id)

    def folder(self, task_id: str) -> TaskFolder:
        """A task's folder."""
        return TaskFolder(path=self._tasks_dir / task_id)

    # -- starting

    async def _start_queued(self) -> None:
        """Start as many as may run.

        Raises:
            Exception: the machine cannot start a worker now; its task is queued again.
        """
        self._woken.clear()
        await self._store.usable()
        if not await self._starting.call(room.has_room, self._tasks_dir.parent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._tasks_dir))
        while self._running < self._max_running and await self._reservations.available():
            task = await self._store.take_next(but=self._recovering.keys())
            if task is None:
                return
            self._running += 1
            try:
                started = await self._start(task)
            except BaseException:
                self._free()
                raise
            if started is None:
                self._free()
            else:
                self._background.start(self._follow(*started))

    async def _start(self, task: StoredTask) -> tuple[StoredTask, WorkerProcess] | None:
        """Start a task's worker; None if the task has ended, else the task with its assignments."""
        folder = self.folder(task.task_id)
        launch = None
        try:
            launch = await self._assignments.assign(task)
            task = assigned(task, launch)
            # Shielded: a worker that was started must not be abandoned half-way by `close`.
            starting = self._starting.call(start_worker, task, folder, launch)
            return task, await asyncio.shield(starting)
        except Exception as error:
            if launch is not None:
                await self._assignments.take_back(task, launch)
            if await self._is_machine_fault(error):
                await self._queue_again(task)
                raise
            await self._store.mark_ended(task.task_id, task_end.not_started(describe(error)))
            return None

    async def _is_machine_fault(self, error: Exception) -> bool:
        """Whether the machine, and not this task, prevents its worker's start."""
        if is_machine_fault(error) or isinstance(error, NoNames | NoFreeUid):
            return True
        # Such as a missing permission: of the task's folder alone, or of the folder of all tasks?
        return isinstance(error, OSError) and not await self._starting.call(
            _can_make_folders, self._tasks_dir
        )

    async def _queue_again(self, task: StoredTask) -> None:
        if await self._store.is_cancelled(task.task_id):
            await self._store.mark_ended(task.task_id, task_end.cancelled())
        else:
            await self._store.requeue(task.task_id)

    # -- recovering

    async def _recover(self, task: StoredTask) -> None:
        """Continue a task that an earlier API process may have started; it runs exactly once."""
        try:
            await self._continue(task)
        finally:
            self._recovering -= Counter([task.account])  # which removes zeros
            self.wake()

    async def _continue(self, task: StoredTask) -> None:
        try:
            process = await self._retried(RECOVERY, task, lambda: self._worker_of(task))
        except Exception as error:
            self._loops.skipped(RECOVERY, task.task_id, error)
            await self._store.mark_ended(task.task_id, task_end.not_followed(describe(error)))
            await self._store.mark_worker_gone(task.task_id)
            self._background.start(self._clean_up(task))
            process = None
        except BaseException:
            self._free()
            raise
        if process is None:
            self._free()
        else:
            self._background.start(self._follow(task, process))

    async def _worker_of(self, task: StoredTask) -> WorkerProcess | None:
        """The task's running worker; without one, the task is ended or queued again."""
        task_id, folder = task.task_id, self.folder(task.task_id)
        if folder.worker_exists() and (process := await find_worker(task, folder)) is not None:
            return process
        if task.ended:
            await self._store.mark_worker_gone(task_id)
        elif folder.has_events() or folder.stderr_tail():
            end = await self._end_of(task, None)
            await self._store.mark_ended(task_id, end)
            if task.uid is None:
                await self._reading.call(task.account, folder.remove_session)
        elif task.cancel:
            await self._store.mark_ended(task_id, task_end.cancelled())
        else:
            await self._clean_up(task, repeat=False)  # its folder is needed again
            await self._store.requeue(task_id)
            return None
        self._background.start(self._clean_up(task))
        return None

    # -- following

    async def _follow(self, task: StoredTask, process: WorkerProcess) -> None:
        """From a worker's start to its end, with a slot that is freed then."""
        task_id = task.task_id
        self._processes[task_id] = task, process
        again = False
        try:
            end = await self._watch(task, process)
            self._processes.pop(task_id)
            again = end is None
            if end is not None:
                await self._store_end(task, end)
                await self._store.mark_worker_gone(task_id)
        except Exception as error:  # a defect: reported, and the slot is freed
            self._loops.skipped(FOLLOWING, task_id, error)
        finally:
            self._full.pop(task_id, None)
            self._free()
        await self._remove_left(task)
        self._assignments.give_back(task_id)
        if again:
            await self._start_again(task)
        else:
            self._failed_starts.pop(task_id, None)

    async def _remove_left(self, task: StoredTask) -> None:
        if task.uid is not None:
            await self._clean_up(task)
            return
        await asyncio.sleep(_ORPHANS_GONE_S)  # a killed worker's programs end by a kernel signal
        with self._loops.handling(FOLLOWING, task.task_id):
            folder = self.folder(task.task_id)
            await self._reading.call(task.account, folder.remove_session)

    async def _is_to_start_again(self, task: StoredTask, returncode: int | None) -> bool:
        """Whether the session failed, such as on a full disk, before the task's code began."""
        if returncode != EXIT_SESSION_LOST or self._failed_starts[task.task_id] >= _STARTS_MAX - 1:
            return False

        async def has_begun() -> bool:
            return await self._reading.call(task.account, self.folder(task.task_id).has_begun)

        try:
            return not await self._retried(FOLLOWING, task, has_begun)
        except OSError:  # without isolation, anything may be in the place of its events
            return False

    async def _start_again(self, task: StoredTask) -> None:
        task_id = task.task_id
        self._failed_starts[task_id] += 1
        failures = self._failed_starts[task_id]
        self._loops.report("task.requeued", task_id=task_id, failed_starts=failures)
        with self._loops.handling(FOLLOWING, task_id):
            await self._reading.call(task.account, self.folder(task_id).remove)
        await asyncio.sleep(back_off_s(failures))
        await self._queue_again(task)
        self.wake()

    async def _clean_up(self, task: StoredTask, *, repeat: bool = True) -> None:
        """Remove what a task's own user has left; nothing if it has none."""
        for attempt in itertools.count(1):
            cleaned = True
            with self._loops.handling(FOLLOWING, task.task_id):
                cleaned = await self._retried(
                    FOLLOWING, task, partial(self._clean_up_once, task, attempt)
                )
            if cleaned or not repeat:
                self.wake()
                return
            await asyncio.sleep(back_off_s(attempt))

    async def _clean_up_once(self, task: StoredTask, attempt: int) -> bool:
        return await self._assignments.clean_up(task, self.folder(task.task_id), attempt=attempt)

    async def _watch(self, task: StoredTask, process: WorkerProcess) -> TaskEnd | None:
        """Wait for a worker's end; the task's, or None if it is to be started again."""
        reading = asyncio.ensure_future(self._read_events(task))
        saving = asyncio.ensure_future(self._save_process(task, process))
        try:
            overdue = await self._retried(
                FOLLOWING, task, lambda: self._is_overdue(task, process, reading)
            )
            returncode = await self._retried(FOLLOWING, task, process.ended)
        except Exception as error:  # a defect: a worker that cannot be followed must not go on
            self._loops.skipped(FOLLOWING, task.task_id, error)
            await self._retried(FOLLOWING, task, lambda: self._end(task, process))
            return task_end.not_followed(describe(error))
        finally:
            for each in (reading, saving):
                each.cancel()
            await asyncio.wait([reading, saving])
            self._addresses.pop(task.task_id, None)
        if overdue is None and await self._is_to_start_again(task, returncode):
            return None
        return overdue or await self._end_of(task, returncode)

    async def _is_overdue(
        self, task: StoredTask, process: WorkerProcess, reading: asyncio.Future[None]
    ) -> TaskEnd | None:
        """Wait for a worker's end, or end it after its time; the task's end in that case."""
        if await self._watchdog.ends_in_time(process, task.timeout_s):
            return None
        reading.cancel()  # later events would describe the watchdog's signal
        await self._end(task, process)
        return task_end.overdue(task)  # not stored if the worker reported an end before

    async def _save_process(self, task: StoredTask, process: WorkerProcess) -> None:
        if await self._store.save_process(task.task_id, process.pid, process.started):
            process.cancel()

    async def _end_of(self, task: StoredTask, returncode: int | None) -> TaskEnd:
        """The end of a task whose worker has ended, from what it left."""
        folder = self.folder(task.task_id)
        was_cancelled = await self._store.is_cancelled(task.task_id)

        async def read() -> TaskEnd:
            return await self._reading.call(
                task.account,
                task_end.of_ended_worker,
                folder,
                returncode,
                was_cancelled=was_cancelled,
                account=task.account,
            )

        try:
            return self._with_cause(task, await self._retried(FOLLOWING, task, read))
        except Exception as error:
            self._loops.skipped(FOLLOWING, task.task_id, error)
            return task_end.unreadable(describe(error), returncode)

    async def _store_end(self, task: StoredTask, end: TaskEnd) -> None:
        try:
            await self._store.mark_ended(task.task_id, end)
        except Exception as error:  # a value that cannot be stored
            self._loops.skipped(FOLLOWING, task.task_id, error)
            end = task_end.unreadable(describe(error), None)
            await self._store.mark_ended(task.task_id, end)

    async def _read_events(self, task: StoredTask) -> None:
        if task.ended:
            return

        async def read() -> None:
            folder = self.folder(task.task_id)
            async for event in channel.events(folder.events):
                with self._loops.handling(FOLLOWING, task.task_id):
                    await self._on_event(task, folder, event)

        try:
            await self._retried(FOLLOWING, task, read)
        except Exception as error:  # the worker's end is still detected
            self._loops.skipped(FOLLOWING, task.task_id, error)

    async def _on_event(self, task: StoredTask, folder: TaskFolder, event: Event) -> None:
        if event.name == _STREAM_READY:
            if (found := address(task)) is not None:
                self._addresses[task.task_id] = found
            await self._store.mark_running(task.task_id, event.time)
        elif event.name == _TASK_FINISHED:
            # The result is complete; the worker is still cleaning up.
            self._addresses.pop(task.task_id, None)
            if event.fields.get("exit_code") == EXIT_SESSION_LOST:
                return  # it may be started again: the worker's end decides
            fields = {**event.fields, "time": event.time}
            end = await self._reading.call(
                task.account, task_end.of_finished_task, folder, fields, account=task.account
            )
            if end is not None:
                await self._store.mark_ended(task.task_id, self._with_cause(task, end))

    def _with_cause(self, task: StoredTask, end: TaskEnd) -> TaskEnd:
        why = self._full.get(task.task_id)
        return end if why is None else task_end.disk_full(end, why)

    async def _retried(self, loop: str, task: StoredTask, work: Callable[[], Awaitable[T]]) -> T:
        """Do this work on a task, and repeat it with back-off while the machine prevents it.

        Raises:
            Exception: any other error.
        """
        failures = 0
        while True:
            try:
                return await work()
            except Exception as error:
                if not is_machine_fault(error):
                    raise
                self._loops.skipped(loop, task.task_id, error)
            failures += 1
            await asyncio.sleep(back_off_s(failures))

    def _free(self) -> None:
        self._running -= 1
        self._woken.set()


def _can_make_folders(parent: Path) -> bool:
    probe = parent / "probe"
    try:
        probe.mkdir(parents=True, exist_ok=True)
        probe.rmdir()
    except OSError:
        return False
    return True
