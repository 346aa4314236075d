"""The docker runner: a container per task, and no memory but the engine's.

A queued task is a container that was created and not yet started. What an API that is killed leaves
undone, the next one finds in the list of containers. One API per engine and network: two would
start more at a time than they may.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners import container_worker
from worker.api.runners.availability import Availability
from worker.api.runners.docker.container import TOLD, Container, ContainerSpec
from worker.api.runners.docker.containers import Containers
from worker.api.runners.docker.engine import Engine, EngineError
from worker.api.runners.docker.queue import ContainerQueue
from worker.api.runners.protocol import (
    CALLBACK_LEASE_S,
    Artifact,
    Cursor,
    QueueFull,
    RunnerUnavailable,
    TaskRecord,
    TaskRequest,
    TaskStatus,
)
from worker.errors import SettingError
from worker.events import Events
from worker.net import netloc
from worker.outcome import EXIT_SIGKILL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence
    from pathlib import Path

    from worker.api.runners.availability import Report
    from worker.api.runners.protocol import StreamKey
    from worker.settings.docker import DockerSettings

_STOP_GRACE_S: Final = 30
_RETRY_AFTER_S: Final = 10
_RETENTION_S: Final = 86400.0
"""By default: each look at the queue has the engine list all that is kept."""


def make(settings: DockerSettings, stream_key: StreamKey) -> DockerRunner:
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
        seccomp=_seccomp(settings.seccomp_file),
        memory_bytes=settings.memory_bytes,
        environ=container_worker.common(os.environ),
    )
    return DockerRunner(
        spec=spec,
        stream_key=stream_key,
        max_running=settings.max_running,
        queue_max=settings.queue_max,
        retention_s=_RETENTION_S if settings.retention_s is None else settings.retention_s,
        report=Events(None).emit,
    )


def _seccomp(given: Path | None) -> str:
    file = given or container_worker.SOURCE_TREE / "docker/seccomp.json"
    try:
        return json.dumps(json.loads(file.read_bytes()))
    except (OSError, ValueError) as error:
        raise SettingError(
            f"WORKER_SECCOMP_FILE: cannot read a seccomp profile in {file}; "
            "name docker/seccomp.json of the source tree"
        ) from error


class DockerRunner:
    """Tasks as containers of one network, at most so many at a time."""

    def __init__(
        self,
        *,
        spec: ContainerSpec,
        stream_key: StreamKey,
        max_running: int,
        queue_max: int,
        retention_s: float,
        report: Report,
    ) -> None:
        self._spec = spec
        self._stream_key = stream_key
        self._max_running = max_running
        self._queue_max = queue_max
        self._retention_s = retention_s
        self._report = report
        self._engine: Engine  # from `open` on, and so the next three
        self._containers: Containers
        self._queue: ContainerQueue
        self._starting: asyncio.Task[None]
        self._stories: set[asyncio.Task[None]] = set()
        self._leased_until: dict[str, datetime] = {}

    # -- life

    async def open(self) -> None:
        """Meet the engine, and begin to start what is queued.

        Raises:
            SettingError: there is no engine, no image, or no network.
        """
        self._engine = await asyncio.to_thread(Engine)
        client = self._engine.client
        await self._there(client.inspect_image, self._spec.image, "image", "WORKER_IMAGE")
        await self._there(client.inspect_network, self._spec.network, "network", "WORKER_NETWORK")
        self._containers = Containers(self._engine, self._spec.network)
        self._queue = ContainerQueue(
            self._engine,
            self._containers,
            Availability(self._report),
            max_running=self._max_running,
            retention_s=self._retention_s,
        )
        self._starting = self._spawn(self._queue.run())

    async def close(self) -> None:
        """Leave the containers alone."""
        for story in self._stories:
            story.cancel()
        await asyncio.gather(*self._stories, return_exceptions=True)
        self._engine.close()

    async def ready(self) -> bool:
        """Whether the engine answers, and the queue is looked after."""
        if self._starting.done():
            return False
        with contextlib.suppress(RunnerUnavailable, EngineError):
            await self._engine.call_once(self._engine.client.ping)
            return True
        return False

    async def _there(self, inspect: Any, name: str, what: str, setting: str) -> None:
        try:
            await self._engine.call(inspect, name)
        except EngineError as error:
            self._engine.close()
            raise SettingError(
                f"{setting}: the Docker engine has no {what} {name!r}; make it, or name another"
            ) from error
        except RunnerUnavailable as error:
            self._engine.close()
            raise SettingError(f"WORKER_RUNNER=docker: {error}") from error

    def _spawn(self, story: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        told = asyncio.create_task(story)
        self._stories.add(told)
        told.add_done_callback(self._stories.discard)
        return told

    # -- tasks

    async def start(self, request: TaskRequest) -> TaskRecord:
        """Create the container; it is started when its turn comes."""
        async with self._queue.changing(request.task_id):
            there = await self._containers.of_task(request.task_id)
            if there is None:
                queued = sum(each.queued for each in await self._containers.matching())
                if queued >= self._queue_max:
                    raise QueueFull(_RETRY_AFTER_S)
                await self._create(request)
                there = await self._containers.of_task(request.task_id)
        self._queue.wake()
        known = await self._containers.record(there) if there is not None else None
        if known is None:
            raise RunnerUnavailable("the container was removed while it was made")
        return known

    async def _create(self, request: TaskRequest) -> None:
        client = self._engine.client
        body = self._spec.create_body(request, self._stream_key(request.task_id))
        try:
            await self._engine.call(client.create_container_from_config, body, request.task_id)
        except EngineError as error:
            if error.status != HTTPStatus.CONFLICT:  # else an earlier try did it after all
                raise RunnerUnavailable(f"the Docker engine refused the task: {error}") from error

    async def cancel(self, task_id: str) -> None:
        """Stop it with grace; one that is queued keeps its container, which is never started."""
        client = self._engine.client
        async with self._queue.changing(task_id):
            there = await self._containers.of_task(task_id)
            if there is None or there.ended:
                return
            if there.queued:
                name = there.name_when_cancelled(datetime.now(UTC))
                await self._engine.call_if_there(client.rename, there.id, name)
                return
            # At once, so that the caller hears of an engine that does not answer.
            await self._engine.call_if_there(client.kill, there.id, "SIGTERM")
        self._spawn(self._stop(there))

    async def _stop(self, container: Container) -> None:
        """Wait for the end; where it took a KILL, say for the worker why it came."""
        client = self._engine.client
        with contextlib.suppress(RunnerUnavailable):
            await self._engine.call_if_there(client.stop, container.id, timeout=_STOP_GRACE_S)
            details = await self._engine.call_if_there(client.inspect_container, container.id)
            if details is not None and details["State"]["ExitCode"] == EXIT_SIGKILL:
                name = container.name_when_cancelled(datetime.now(UTC))
                await self._engine.call_if_there(client.rename, container.id, name)
        self._queue.wake()

    async def find(self, account: str, task_id: str) -> TaskRecord | None:
        """Look it up by both."""
        there = await self._containers.matching(task_id=task_id, account=account)
        return await self._containers.record(there[0]) if there else None

    async def list(
        self, account: str, *, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        """Look at the newest until there are enough."""
        there = await self._containers.matching(account=account)
        there.sort(key=lambda each: each.place, reverse=True)
        wanted = iter([each for each in there if before is None or each.place < before])
        found: list[TaskRecord] = []
        while len(found) < limit and (some := list(itertools.islice(wanted, limit))):
            records = await self._containers.records(some)
            found += [each for each in records if status in (None, each.status)]
        return found[:limit]

    async def counts(self) -> dict[TaskStatus, int]:
        """Count them all."""
        records = await self._containers.records(await self._containers.matching())
        return dict(Counter(each.status for each in records))

    # -- streams and artifacts

    async def stream_address(self, task_id: str) -> str | None:
        """The container's own address, which is reached from the engine's machine."""
        there = await self._containers.of_task(task_id)
        if there is None or not there.running or not await self._containers.is_ready(there):
            return None
        return f"ws://{netloc(there.address, container_worker.STREAM_PORT)}"

    async def artifacts(self, task_id: str) -> Sequence[Artifact]:
        """The files of its volume."""
        there = await self._containers.of_task(task_id)
        return await self._containers.files(there) if there is not None else []

    async def open_artifact(self, task_id: str, name: str) -> AsyncIterator[bytes] | None:
        """One of them."""
        there = await self._containers.of_task(task_id)
        return await self._containers.open_file(there, name) if there is not None else None

    # -- callbacks

    async def callbacks_due(self) -> Sequence[TaskRecord]:
        """Lent in memory: after a restart they are due again."""
        now = datetime.now(UTC)
        owed = [
            each
            for each in await self._containers.matching()
            if each.ended
            and each.callback_owed
            and self._leased_until.get(each.task_id, now) <= now
        ]
        records = await self._containers.records(owed)
        for each in records:
            self._leased_until[each.task_id] = now + timedelta(seconds=CALLBACK_LEASE_S)
        return records

    async def callback_settled(self, task_id: str) -> None:
        """Say so in its name."""
        there = await self._containers.of_task(task_id)
        if there is not None and there.ended and there.callback_owed:
            rename = self._engine.client.rename
            await self._engine.call_if_there(rename, there.id, there.name + TOLD)
        self._leased_until.pop(task_id, None)
