"""The docker runner: a container per task; all state is the engine's.

A queued task is a container that was created and not started yet. What a killed API process leaves
undone, the next one finds in the list of containers. One API per engine and network: two would
exceed the limit of running containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from worker.api.runners import worker_environment
from worker.api.runners.availability import Availability
from worker.api.runners.background import BackgroundTasks, Loops, Rounds, back_off_s
from worker.api.runners.docker import queue, retention
from worker.api.runners.docker.container import NOTIFIED, Container
from worker.api.runners.docker.container_spec import ContainerSpec, seccomp_profile
from worker.api.runners.docker.engine import Calls, Engine, EngineError
from worker.api.runners.docker.queue import ContainerQueue
from worker.api.runners.docker.retention import ContainerRetention
from worker.api.runners.docker.task_containers import TaskContainers
from worker.api.runners.docker.watchdog import MARGIN_S, ContainerWatchdog, Limits
from worker.api.runners.fairness import Capacity
from worker.api.runners.leases import CallbackLeases, LeaseReads
from worker.api.runners.protocol import (
    NOT_ENDED,
    Artifact,
    Cursor,
    NotRemovable,
    RunnerUnavailable,
    TaskRecord,
    TaskRequest,
    TaskStatus,
)
from worker.events import Events
from worker.net import netloc
from worker.outcome import EXIT_SIGKILL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker.api.runners.availability import Report
    from worker.api.runners.protocol import StreamKey
    from worker.settings.docker import DockerSettings

_STOP_GRACE_S: Final = 30
_RETENTION_S: Final = 86400.0
"""The default; not longer, because the queue has the engine list all kept containers each time."""


def make(
    settings: DockerSettings, stream_key: StreamKey, loops: Loops | None = None
) -> DockerRunner:
    """Make the runner; `open` connects to the engine.

    Raises:
        SettingError: the seccomp profile cannot be read.
    """
    folder = settings.endpoints_dir
    mounted = str(folder.expanduser().absolute()) if folder is not None else None
    spec = ContainerSpec(
        image=settings.image,
        network=settings.network,
        endpoints=settings.docker_endpoints or mounted,
        seccomp=seccomp_profile(settings.seccomp_file),
        memory_bytes=settings.memory_bytes,
        environ=worker_environment.container_environment(os.environ),
    )
    return DockerRunner(
        spec=spec,
        stream_key=stream_key,
        capacity=Capacity.of(settings),
        retention_s=_RETENTION_S if settings.retention_s is None else settings.retention_s,
        limits=Limits(margin_s=MARGIN_S + settings.hold_s),
        report=Events(None).emit if loops is None else loops.report,
        loops=loops,
    )


class DockerRunner:
    """Runs tasks as containers of one network, with a limit of running ones."""

    def __init__(
        self,
        *,
        spec: ContainerSpec,
        stream_key: StreamKey,
        capacity: Capacity,
        retention_s: float,
        limits: Limits,
        report: Report,
        loops: Loops | None = None,
    ) -> None:
        self._spec = spec
        self._stream_key = stream_key
        self._capacity = capacity
        self._retention_s = retention_s
        self._limits = limits
        self._engine: Engine  # set by `open`, like the next two
        self._containers: TaskContainers
        self._queue: ContainerQueue
        self._availability = Availability(report)
        self._stopping: set[str] = set()
        self._loops = loops or Loops(report)
        self._background = BackgroundTasks(self._loops)
        self._leases = CallbackLeases()
        self._lease_reads = LeaseReads()

    async def open(self) -> None:
        """Connect to the engine and begin to start queued tasks.

        Raises:
            SettingError: there is no engine, no image, or no network.
        """
        max_running = self._capacity.max_running
        self._engine = await asyncio.to_thread(partial(Engine, max_running=max_running))
        client, spec = self._engine.client, self._spec
        await self._engine.require(client.inspect_image, spec.image, "image", "WORKER_IMAGE")
        await self._engine.require(
            client.inspect_network, spec.network, "network", "WORKER_NETWORK"
        )
        self._containers = TaskContainers(self._engine, self._spec.network, self._loops)
        self._queue = ContainerQueue(
            self._engine,
            self._containers,
            self._availability,
            self._loops,
            capacity=self._capacity,
        )
        self._background.repeat(queue.NAME, self._queue.iterate, self._queue.pause)
        parts = (self._engine, self._containers)
        watchdog = ContainerWatchdog(
            *parts, self._limits, self._loops, rounds=Rounds(self._background)
        )
        self._background.repeat("watchdog", watchdog.iterate, watchdog.pause)
        if self._retention_s:
            rounds = Rounds(self._background)
            swept = ContainerRetention(*parts, self._loops, rounds, kept_s=self._retention_s)
            self._background.repeat(retention.NAME, swept.iterate, swept.pause)

    async def close(self) -> None:
        """End; the containers continue to run."""
        await self._background.cancel()
        await self._lease_reads.cancel()
        self._engine.close()

    async def ready(self) -> bool:
        """Whether the engine answers and can start containers."""
        if self._availability.why_lost is not None:
            return False
        with contextlib.suppress(RunnerUnavailable, EngineError):
            await self._engine.call_once(self._engine.client.ping)
            return True
        return False

    # -- tasks

    async def start(self, request: TaskRequest) -> TaskRecord:
        """Create the container; the queue starts it."""
        async with self._queue.lock_of(request.task_id):
            containers = await self._containers.matching()
            existing = [each for each in containers if each.task_id == request.task_id]
            if existing:
                task = await self._containers.record(existing[0])
            else:
                queued = [each.account for each in containers if each.queued]
                of_account = queued.count(request.account)
                self._capacity.check_queue(queued=len(queued), of_account=of_account)
                task = await self._create(request)
        self._queue.wake()
        if task is None:
            raise RunnerUnavailable("the container was removed while it was created; try again")
        return task

    async def _create(self, request: TaskRequest) -> TaskRecord | None:
        client = self._engine.client
        body = self._spec.create_body(request, self._stream_key(request.task_id))
        try:
            await self._engine.of(request.account).call(
                client.create_container_from_config, body, request.task_id
            )
        except EngineError as error:
            # A conflict: an attempt whose answer was lost has created it.
            if error.status != HTTPStatus.CONFLICT:
                raise RunnerUnavailable(f"the Docker engine refused the task: {error}") from error
        return await self._containers.created_record(request.task_id, request.account)

    async def cancel(self, task: TaskRecord) -> None:
        """Stop the container; a queued one is kept and never started."""
        container = Container.of(task)
        client = self._engine.client
        async with self._queue.lock_of(task.task_id):
            if container.queued:
                # Only the queue starts containers, under this lock: it may have done so since.
                current = await self._containers.of_task(task.task_id)
                if current is None:
                    return
                container = current
            if container.ended:
                return
            if container.queued:
                name = container.cancelled_name(datetime.now(UTC))
                await self._of(container).call_if_present(client.rename, container.id, name)
                return
            await self._terminate(container)

    async def remove(self, task: TaskRecord) -> None:
        """Remove the container with its volume."""
        async with self._queue.lock_of(task.task_id):
            container = await self._containers.of_task(task.task_id)
            if container is None:
                return
            if not container.ended:
                raise NotRemovable(NOT_ENDED)
            calls = self._engine.removing(container.account)
            remove = self._engine.client.remove_container
            await calls.call_if_present(remove, container.id, v=True)
            self._containers.forget(container)

    async def _terminate(self, container: Container) -> None:
        """Send SIGTERM, and SIGKILL after the grace period; not to a container that has ended.

        Raises:
            RunnerUnavailable: the engine did not answer. The signal may have been sent all the
                same, so that SIGKILL follows.
        """

        def kill() -> bool:
            self._engine.client.kill(container.id, "SIGTERM")
            return True

        sent = True
        try:
            sent = await self._of(container).call_if_present(kill) or await self._is_running(
                container
            )
        finally:
            if sent:
                self._background.start(self._stop(container))

    def _of(self, container: Container) -> Calls:
        return self._engine.of(container.account)

    async def _is_running(self, container: Container) -> bool:
        inspect = self._engine.client.inspect_container
        details = await self._of(container).call_if_present(inspect, container.id)
        return details is not None and not Container.from_inspect(details).ended

    async def _stop(self, container: Container) -> None:
        """`_end`, repeated while the engine does not answer; once at a time for a container."""
        if container.id in self._stopping:
            return
        self._stopping.add(container.id)
        failures = 0
        try:
            while not await self._end(container):
                failures += 1
                await asyncio.sleep(back_off_s(failures))
        finally:
            self._stopping.discard(container.id)
        self._queue.wake()

    async def _end(self, container: Container) -> bool:
        """Wait for the end; if it took a SIGKILL, record the cancellation for the worker.

        False if the engine does not answer, or if the container still runs.
        """
        client = self._engine.client
        with contextlib.suppress(RunnerUnavailable):
            await self._engine.stopping.call_if_present(
                client.stop, container.id, timeout=_STOP_GRACE_S
            )
            inspect = client.inspect_container
            details = await self._of(container).call_if_present(inspect, container.id)
            if details is None:
                return True
            current = Container.from_inspect(details)
            if not current.ended:
                return False
            if details["State"]["ExitCode"] == EXIT_SIGKILL and current.cancelled_at is None:
                name = container.cancelled_name(datetime.now(UTC))
                await self._of(container).call_if_present(client.rename, container.id, name)
            return True
        return False

    async def find(self, account: str, task_id: str, *, summary: bool = False) -> TaskRecord | None:
        """This account's task; the engine selects by both labels."""
        found = await self._containers.matching(task_id=task_id, account=account)
        if summary:
            return next(iter(await self._containers.records(found[:1])), None)
        return await self._containers.record(found[0]) if found else None

    async def list(
        self, account: str, *, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        """Inspect the newest containers until enough match."""
        containers = await self._containers.matching(account=account)
        containers.sort(key=lambda each: each.cursor, reverse=True)
        older = iter([each for each in containers if before is None or each.cursor < before])
        found: list[TaskRecord] = []
        while len(found) < limit and (batch := list(itertools.islice(older, limit))):
            records = await self._containers.records(batch)
            found += [each for each in records if status in (None, each.status)]
        return found[:limit]

    async def counts(self) -> dict[TaskStatus, int]:
        """Inspects every container whose end is not cached."""
        records = await self._containers.records(await self._containers.matching())
        return dict(Counter(each.status for each in records))

    # -- streams and artifacts

    async def stream_address(self, task: TaskRecord) -> str | None:
        """The container's own address, which is reachable from the engine's machine."""
        container = Container.of(task)
        if not container.running or not await self._containers.is_ready(task):
            return None
        return f"ws://{netloc(container.address, worker_environment.STREAM_PORT)}"

    async def artifacts(self, task: TaskRecord) -> Sequence[Artifact]:
        """The files of the container's artifacts volume."""
        return await self._containers.files(Container.of(task))

    async def open_artifact(self, task: TaskRecord, name: str) -> AsyncIterator[bytes] | None:
        """A file of `artifacts`, streamed from the engine."""
        return await self._containers.open_file(Container.of(task), name)

    # -- callbacks

    async def lease_callbacks(self) -> Sequence[TaskRecord]:
        """Leases are kept in memory: after a restart the callbacks are pending again."""
        containers = await self._containers.matching()
        pending = [each for each in containers if each.ended and each.callback_pending]
        pending.sort(key=lambda each: each.cursor)
        leased = self._leases.take((each.account, each.task_id) for each in pending)
        for each in pending:
            if each.task_id in leased:
                self._lease_reads.begin(each.task_id, partial(self._containers.record, each))
        read, failures = await self._lease_reads.ended()
        self._leases.release(*failures)  # the others are delivered
        self._leases.renew(*read)
        if failures and not read and not self._lease_reads.running:
            raise next(iter(failures.values()))
        return [each for each in read.values() if each is not None]

    async def finish_callback(self, task: TaskRecord) -> None:
        """Append `.notified` to the name as it is now: a cancellation may have been added."""
        container = await self._containers.of_task(task.task_id)
        if container is not None and container.ended and container.callback_pending:
            name = container.name + NOTIFIED
            rename = self._engine.client.rename
            await self._of(container).call_if_present(rename, container.id, name)
        self._leases.release(task.task_id)
