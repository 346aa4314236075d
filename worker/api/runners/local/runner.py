"""The local runner: a worker process per task on this machine, and a queue in SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker import linux
from worker.api.accounts import Accounts, keys_file
from worker.api.endpoints import endpoints_folder
from worker.api.runners import files
from worker.api.runners.availability import Availability
from worker.api.runners.background import BackgroundTasks, Loops, Rounds
from worker.api.runners.fairness import Capacity
from worker.api.runners.leases import PER_ACCOUNT_MAX, CallbackLeases
from worker.api.runners.local import stale, task_end
from worker.api.runners.local.disk import room, watch
from worker.api.runners.local.disk.accounts import DiskAccounts
from worker.api.runners.local.disk.usage import UsageLimit
from worker.api.runners.local.disk.watch import DiskWatch
from worker.api.runners.local.isolation import environment, mechanism
from worker.api.runners.local.isolation.assignments import Assignments
from worker.api.runners.local.isolation.mechanism import Isolation
from worker.api.runners.local.isolation.reservations import Reservations
from worker.api.runners.local.retention import DEFAULT_S, NAME, Retention
from worker.api.runners.local.store import Store
from worker.api.runners.local.task_folder import TaskFolder
from worker.api.runners.local.watchdog import Watchdog
from worker.api.runners.local.workers import Workers
from worker.api.runners.protocol import (
    NOT_ENDED,
    AccountRefused,
    Artifact,
    Cursor,
    NotRemovable,
    RunnerUnavailable,
    TaskRecord,
    TaskRequest,
    TaskStatus,
)
from worker.api.runners.threads import SharedThreads
from worker.api.runners.worker_environment import passed_on
from worker.errors import SettingError
from worker.events import Events
from worker.settings import PREFIX

if TYPE_CHECKING:
    from worker.api.runners.protocol import StreamKey
    from worker.settings.local import LocalSettings

_TRIAL_TASK: Final = "trial"
_NOT_ISOLATED: Final = (
    "This API runs tasks of one account only, because they are not isolated from each other; its "
    "operator can change that (WORKER_LOCAL_SHARED)"
)
_THREADS: Final = 8
_PER_ACCOUNT: Final = 2


class LocalRunner:
    """Runs tasks as processes of this machine, with limits of running and queued ones.

    Workers continue to run after `close`, and the next `open` finds them again.
    """

    def __init__(  # noqa: PLR0913 - one argument for each setting, by name
        self,
        *,
        state_dir: Path,
        environ: Mapping[str, str],
        stream_key: StreamKey,
        capacity: Capacity,
        retention: Retention,
        usage_limit: UsageLimit | None = None,
        watchdog: Watchdog | None = None,
        loops: Loops | None = None,
        detect: Callable[[], Isolation] = Isolation,
        accounts: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        """Store the settings; `open` begins.

        Args:
            state_dir: where the tasks are stored.
            environ: the environment that every worker's is based on.
            stream_key: returns a task's stream key for its id.
            capacity: the limits of running and queued tasks.
            retention: how long an ended task is kept.
            usage_limit: what the tasks of an account may occupy on the disk; default: no limit.
            watchdog: the limits of a worker's time; default: Watchdog's own.
            loops: where the state of the runner's loops is recorded.
            detect: finds out how tasks are isolated; default: not at all.
            accounts: the accounts, of which only the first may start tasks that are not isolated;
                None: all may.
        """
        self._state_dir = state_dir
        self._environ = environ
        self._stream_key = stream_key
        self._capacity = capacity
        self._retention = retention
        self._disk = DiskAccounts(usage_limit)
        self._watchdog = watchdog or Watchdog()
        self._loops = loops or Loops(Events(None).emit)
        self._availability = Availability(self._loops.report)
        self._detect, self._accounts = detect, accounts
        self._isolation = Isolation()
        self._background = BackgroundTasks(self._loops)
        self._leases = CallbackLeases()
        self._lock: int | None = None
        self._opened: tuple[Store, Workers] | None = None
        self._watch: DiskWatch | None = None
        self._reading: SharedThreads  # set by `open`, like the next one
        self._removing: SharedThreads

    async def open(self) -> None:
        """Lock the state folder, find the workers of an earlier API process, start queued tasks."""
        try:
            self._state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _lock(self._state_dir)
            self._state_dir.chmod(0o700)  # it may have been created by hand
        except OSError as error:
            raise SettingError(
                f"WORKER_STATE_DIR: cannot use {self._state_dir}: {error.strerror}; "
                "set another folder"
            ) from error
        self._isolation = await asyncio.to_thread(self._detect)
        self._check_accounts()
        store = Store(
            self._state_dir / "tasks.sqlite3", self._capacity, self._availability, self._disk
        )
        reservations = Reservations(
            self._capacity.max_running,
            with_files=not self._isolation.assigns_uids,
            report=self._loops.report,
        )
        workers = Workers(
            store,
            self._state_dir / "tasks",
            max_running=self._capacity.max_running,
            watchdog=self._watchdog,
            loops=self._loops,
            assignments=Assignments(
                store,
                self._isolation,
                reservations,
                environ=self._environ,
                stream_key=self._stream_key,
                report=self._loops.report,
            ),
            reservations=reservations,
        )
        self._reading = SharedThreads(_THREADS, _PER_ACCOUNT, "artifacts")
        self._removing = SharedThreads(_THREADS, _PER_ACCOUNT, "removal")
        self._opened = (store, workers)
        if self._disk.limit:
            self._watch = DiskWatch(store, self._disk, workers, self._loops)
        try:
            if self._watch is not None:
                await self._watch.open()
            await workers.open()
        except RunnerUnavailable as error:
            raise SettingError(f"WORKER_STATE_DIR: {error}; set another folder") from error
        self._background.repeat(stale.NAME, lambda: stale.remove(self._loops.report), stale.pause)
        self._start_retention(store, workers)
        if self._watch is not None:
            self._background.repeat(watch.NAME, self._watch.sweep, self._watch.pause)

    def _start_retention(self, store: Store, workers: Workers) -> None:
        async def sweep() -> None:
            await self._retention.sweep(
                store,
                lambda task_id: workers.folder(task_id).remove,
                self._loops,
                rounds=rounds,
                run=self._removing.call,
            )

        rounds = Rounds(self._background)
        if self._retention.kept_s:
            self._background.repeat(NAME, sweep, self._retention.pause)

    async def close(self) -> None:
        """End; the workers continue to run."""
        await self._background.cancel()
        if self._watch is not None:
            await self._watch.close()
        if self._opened is not None:
            store, workers = self._opened
            self._reading.close()
            self._removing.close()
            await workers.close()
            await store.close()
        if self._lock is not None:
            os.close(self._lock)

    async def ready(self) -> bool:
        """Whether the state folder can be written, and has room for a task."""
        return (
            self._opened is not None
            and self._availability.why_lost is None
            and room.has_room(self._state_dir)
        )

    @property
    def _store(self) -> Store:
        return self._parts[0]

    @property
    def _workers(self) -> Workers:
        return self._parts[1]

    @property
    def _parts(self) -> tuple[Store, Workers]:
        if self._opened is None:
            raise RuntimeError("the runner is not open")
        return self._opened

    @property
    def notices(self) -> Sequence[tuple[str, dict[str, Any]]]:
        """Events that report how tasks are isolated, each with its fields."""
        return [self._isolation.notice]

    @property
    def tasks_have_cgroups(self) -> bool:
        """Whether each task has a cgroup: those without one would be in the API's."""
        return self._isolation.cpu.beside is not None

    def _refused_accounts(self) -> Sequence[str]:
        if self._accounts is None or self._isolation.mechanism != "none":
            return ()
        return self._accounts()[1:]

    def _check_accounts(self) -> None:
        if refused := self._refused_accounts():
            raise SettingError(
                f"tasks are not isolated from each other ({self._isolation.why}), so one account "
                f"could read and control the tasks of another: {', '.join(refused)}; run the API "
                "as root, enable Landlock, revoke the others' keys, or set WORKER_LOCAL_SHARED=true"
            )

    # -- tasks

    async def start(self, request: TaskRequest) -> TaskRecord:
        """Store the task as queued, unless its id exists.

        Raises:
            AccountRefused: tasks are not isolated, and the account is not the first one.
            QueueFull, AccountFull: a limit is reached.
        """
        if request.account in self._refused_accounts():
            raise AccountRefused(_NOT_ISOLATED)
        record = await self._store.add(request)
        self._workers.wake()
        return record

    async def cancel(self, task: TaskRecord) -> None:
        """End a queued task; send SIGTERM to the worker of a running one."""
        if not await self._store.cancel_queued(task.task_id, task_end.cancelled(exit_code=None)):
            self._workers.cancel(task.task_id)

    async def remove(self, task: TaskRecord) -> None:
        """Remove the task's folder, then the task."""
        async with self._store.removal(task.task_id):
            if self._store.summary(task.task_id) is None:
                return  # another request was faster; its id may be used again from now on
            if not await self._store.is_removable(task.task_id):
                raise NotRemovable(NOT_ENDED)
            folder = self._workers.folder(task.task_id)
            why = await self._removing.call(task.account, folder.remove)
            if why is not None:
                raise NotRemovable(f"Its files cannot be removed: {why}")
            await self._store.remove([task.task_id])
        self._leases.release(task.task_id)
        self._workers.wake()

    async def find(self, account: str, task_id: str, *, summary: bool = False) -> TaskRecord | None:
        """This account's task."""
        return self._store.find(account, task_id, summary=summary)

    async def list(
        self, account: str, *, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        """This account's tasks, newest first."""
        return self._store.list(account, status, before, limit)

    async def counts(self) -> dict[TaskStatus, int]:
        """The number of tasks in each status."""
        return self._store.counts()

    # -- streams and artifacts

    async def stream_address(self, task: TaskRecord) -> str | None:
        """Where the worker listens, from `stream.ready` until its task's end."""
        return self._workers.address(task.task_id)

    async def artifacts(self, task: TaskRecord) -> Sequence[Artifact]:
        """The files of the task's folder."""
        folder = self._workers.folder(task.task_id).artifacts
        with _machine_faults():
            return await self._reading.call(task.account, files.list_files, folder)

    async def open_artifact(self, task: TaskRecord, name: str) -> AsyncIterator[bytes] | None:
        """A file of the task's folder."""
        folder = self._workers.folder(task.task_id).artifacts
        run = partial(self._reading.call, task.account)
        with _machine_faults():
            return await run(files.open_file, folder, name, run)

    # -- callbacks

    async def lease_callbacks(self) -> Sequence[TaskRecord]:
        """Leases are kept in memory: after a restart the callbacks are pending again."""
        pending = self._store.pending_callbacks(PER_ACCOUNT_MAX)
        taken = self._leases.take(pending)
        try:
            records = [self._store.summary(task_id) for task_id in taken]
        except BaseException:
            self._leases.release(*taken)
            raise
        return [each for each in records if each is not None]

    async def finish_callback(self, task: TaskRecord) -> None:
        """Store that the callback was delivered or has failed."""
        await self._store.finish_callback(task.task_id)
        self._leases.release(task.task_id)


def make(settings: LocalSettings, stream_key: StreamKey, loops: Loops | None = None) -> LocalRunner:
    """Make the runner; `open` finds the workers of an earlier API process.

    Raises:
        SettingError: the range of uids is too small.
    """
    environ = {
        **environment.passed_on(os.environ, settings.local_environment),
        **passed_on(os.environ, same_machine=True),
        # The debug page gives stream URLs without authentication; the API requires a key.
        f"{PREFIX}DEBUG_PAGE": "false",
    }
    return LocalRunner(
        state_dir=_state_dir(settings),
        environ=environ,
        stream_key=stream_key,
        capacity=Capacity.of(settings),
        retention=Retention(
            kept_s=DEFAULT_S if settings.retention_s is None else settings.retention_s,
            report=Events(None).emit,
        ),
        usage_limit=UsageLimit(
            max_bytes=settings.account_max_bytes or None,
            max_files=settings.account_max_files or None,
        ),
        watchdog=Watchdog(margin_s=Watchdog().margin_s + settings.hold_s),
        loops=loops,
        detect=_detection(settings, environ),
        accounts=None if settings.local_shared else Accounts(keys_file(settings)).names,
    )


def _state_dir(settings: LocalSettings) -> Path:
    return settings.state_dir.expanduser().absolute()


def _detection(settings: LocalSettings, environ: Mapping[str, str]) -> Callable[[], Isolation]:
    """What finds out how tasks are isolated, once the state folder is locked."""
    uses_uids = settings.local_isolation == "auto" and os.geteuid() == 0
    if uses_uids and len(settings.uids) < settings.max_running:
        raise SettingError(
            f"WORKER_LOCAL_UIDS: {len(settings.uids)} uids are too few for WORKER_MAX_RUNNING "
            f"{settings.max_running}; give a larger range"
        )

    def detect() -> Isolation:
        linux.hide_from_peers()
        return mechanism.detect(
            settings.local_isolation,
            settings.uids,
            folder=TaskFolder(path=_state_dir(settings) / _TRIAL_TASK),
            environ=environ,
            readable=tuple(path.absolute() for path in settings.local_readable),
            hidden=(_state_dir(settings), keys_file(settings)),
            endpoints=endpoints_folder(settings),
        )

    return detect


@contextlib.contextmanager
def _machine_faults() -> Iterator[None]:
    """Raise RunnerUnavailable in place of the errors that `files` raises."""
    try:
        yield
    except OSError as error:
        raise RunnerUnavailable(f"artifacts cannot be read now: {error.strerror}") from error


def _lock(state_dir: Path) -> int:
    """Lock the state folder for this API process; the lock's descriptor."""
    descriptor = os.open(state_dir / "api.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SettingError(
            f"another `worker serve` uses {state_dir}; stop it, or set another WORKER_STATE_DIR"
        ) from None
    return descriptor
