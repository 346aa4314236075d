"""What is assigned to a worker before it is started, and taken back after its end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker import net
from worker.api.runners.local.isolation.reservations import HOST
from worker.api.runners.threads import SharedThreads, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.api.runners.local.isolation.mechanism import Isolation
    from worker.api.runners.local.isolation.reservations import Names, Reservations
    from worker.api.runners.local.isolation.uids import Uid
    from worker.api.runners.local.store import Store
    from worker.api.runners.local.stored_task import StoredTask
    from worker.api.runners.local.task_folder import TaskFolder
    from worker.api.runners.protocol import StreamKey

_CLEANING_THREADS: Final = 16
_CLEANING_PER_ACCOUNT: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a worker is started with.

    Attributes:
        environ: its environment, except what the isolation adds.
        isolation: how it is isolated.
        uid: its user; None: this process's.
        names: its port and its display.
    """

    environ: Mapping[str, str]
    isolation: Isolation
    uid: Uid | None
    names: Names

    @property
    def port(self) -> int:
        """The listener's port."""
        return self.names.port

    @property
    def uid_number(self) -> int | None:
        """The uid, if it is not this process's."""
        return self.uid.number if self.uid else None


class Assignments:
    """Assigns each worker its address and, if tasks are isolated by uids, its user."""

    def __init__(
        self,
        store: Store,
        isolation: Isolation,
        reservations: Reservations,
        *,
        environ: Mapping[str, str],
        stream_key: StreamKey,
        report: Callable[..., None],
    ) -> None:
        self._store, self._isolation, self._reservations = store, isolation, reservations
        self._environ, self._stream_key, self._report = dict(environ), stream_key, report
        self._taking = Threads(1, "uid")
        self._cleaning = SharedThreads(_CLEANING_THREADS, _CLEANING_PER_ACCOUNT, "clean-up")
        self._names: dict[str, Names] = {}

    def close(self) -> None:
        """End the threads; workers keep their names."""
        self._taking.close()
        self._cleaning.close()
        for names in self._names.values():
            names.leave()

    async def assign(self, task: StoredTask) -> Launch:
        """Choose a worker's user and address, and store them before it is started.

        Viewers are sent to this address, whatever the worker's output contains.

        Raises:
            NoFreeUid, NoNames, OSError: the machine cannot start a worker now.
        """
        environ = self._environ | {
            "WORKER_STREAM_KEY": self._stream_key(task.task_id).hex(),
            "WORKER_INPUTS": json.dumps(task.inputs),
        }
        uid = None
        with contextlib.ExitStack() as unused:
            if self._isolation.assigns_uids:
                uid = await self._taking.call(self._isolation.take_uid, self._store.uids())
                unused.callback(self._isolation.release, uid.number)
            names = self._reservations.take()
            unused.callback(self._reservations.give_back, names)
            launch = Launch(environ=environ, isolation=self._isolation, uid=uid, names=names)
            await self._store.save_start(task.task_id, port=launch.port, uid=launch.uid_number)
            unused.pop_all()
        self._names[task.task_id] = names
        return launch

    async def take_back(self, task: StoredTask, launch: Launch) -> None:
        """Make what was assigned to a worker that was not started available again."""
        self.give_back(task.task_id)
        if launch.uid is not None:
            self._isolation.release(launch.uid.number)
            await self._store.mark_cleaned_up(task.task_id)

    def give_back(self, task_id: str) -> None:
        """Make a worker's names available again: none of its processes is left."""
        names = self._names.pop(task_id, None)
        if names is not None:
            self._reservations.give_back(names)

    async def clean_up(self, task: StoredTask, folder: TaskFolder, *, attempt: int = 1) -> bool:
        """Kill what is left of a task's own user, and take over its files.

        It takes as long as the removal of the files, in threads of the account's share.

        Returns:
            whether that succeeded; the first attempt that fails is reported.
        """
        if task.uid is None:
            return True
        if await self._cleaning.call(task.account, self._isolation.clean_up, folder, task.uid):
            await self._store.mark_cleaned_up(task.task_id)
            return True
        if attempt == 1:
            self._report("isolation.blocked", task_id=task.task_id, uid=task.uid)
        return False


def assigned(task: StoredTask, launch: Launch) -> StoredTask:
    """The task with what was assigned to its worker."""
    return dataclasses.replace(task, port=launch.port, uid=launch.uid_number)


def address(task: StoredTask) -> str | None:
    """Where viewers connect, as `ws://host:port`; None for a worker of an older version."""
    return None if task.port is None else f"ws://{net.netloc(HOST, task.port)}"
