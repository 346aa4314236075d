"""Reads tasks' containers from the engine: records, readiness, artifacts; caches what is final."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners.archive import Archive
from worker.api.runners.docker.container import (
    ACCOUNT_LABEL,
    ARTIFACTS_PATH,
    CALLBACK_URL_LABEL,
    DIGEST_LABEL,
    ENDPOINT_LABEL,
    NETWORK_LABEL,
    TASK_LABEL,
    Container,
)
from worker.api.runners.docker.container_record import record
from worker.api.runners.files import is_valid_name
from worker.api.runners.machine_faults import describe, is_machine_fault
from worker.api.runners.protocol import TaskRecord, TaskStatus
from worker.api.runners.results import apply_result, parse_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker.api.runners.background import Loops
    from worker.api.runners.docker.engine import Calls, Engine
    from worker.api.runners.protocol import Artifact

UNREADABLE: Final = "TaskUnreadable"
"""The type of the error of a task whose container is not as the runner makes them."""
_READING: Final = "records"
_CACHED_MAX: Final = 10_000
_RESULT_MAX_BYTES: Final = 16 << 20
_PIECE_BYTES: Final = 256 << 10
_STDERR_LINE_MAX_CHARS: Final = 500
_READY_EVENT: Final = b'"stream.ready"'
_READY_LOG_MAX_BYTES: Final = 64 << 10
# A worker's session fails if it is not ready within START_TIMEOUT_S; one that has run longer is.
_START_LIMIT_S: Final = 25.0


class TaskContainers:
    """The tasks' containers of one network."""

    def __init__(self, engine: Engine, network: str, loops: Loops) -> None:
        self._engine = engine
        self._network = network
        self._loops = loops
        self._ended: OrderedDict[tuple[str, str], TaskRecord] = OrderedDict()
        self._files: OrderedDict[str, Sequence[Artifact]] = OrderedDict()
        self._ready: OrderedDict[str, None] = OrderedDict()

    async def matching(self, **labels: str) -> list[Container]:
        """The containers with these labels (`worker.` is prefixed, `_` stands for `-`)."""
        selected = [f"{NETWORK_LABEL}={self._network}", TASK_LABEL]
        selected += [f"worker.{name.replace('_', '-')}={value}" for name, value in labels.items()]
        summaries = await self._engine.call_if_present(
            self._engine.client.containers, all=True, filters={"label": selected}
        )
        found = []
        for summary in summaries or ():
            # Containers of others may have these labels; they are reported and left alone.
            with self._loops.handling(_READING, str(summary.get("Id"))):
                found.append(Container.from_list(summary))
        return found

    async def of_task(self, task_id: str) -> Container | None:
        """A task's container."""
        found = await self.matching(task_id=task_id)
        return found[0] if found else None

    # -- records

    async def records(self, containers: Sequence[Container]) -> list[TaskRecord]:
        """The records of those containers that still exist, in the same order."""
        found = await asyncio.gather(*(self.record(each) for each in containers))
        return [each for each in found if each is not None]

    async def record(self, container: Container) -> TaskRecord | None:
        """The task's record; None if the container was removed. An ended task's is cached.

        The record of a container that cannot be read has the error UNREADABLE.
        """
        key = (container.id, container.name)
        cached = self._ended.get(key)
        if cached is not None:
            return cached
        details = await self._inspect(container.id)
        if details is None:
            return None
        try:
            task = record(container, details)
            if task.status.ended and container.state != "created":
                task = await self._with_result(container, task)
        except Exception as error:  # any: the records of other tasks are not affected
            if is_machine_fault(error):
                raise
            self._loops.skipped(_READING, container.task_id, error)
            task = _unreadable(container, error)
        if task.status.ended:
            _cache(self._ended, key, task)
        return task

    async def created_record(self, name: str) -> TaskRecord | None:
        """The record of a container that was created under this name; one call to the engine."""
        details = await self._inspect(name)
        if details is None:
            return None
        container = Container.from_inspect(details)
        labels = (container.labels.get(NETWORK_LABEL), container.labels.get(TASK_LABEL))
        return record(container, details) if labels == (self._network, name) else None

    async def _inspect(self, container: str) -> Any:
        return await self._engine.call_if_present(self._engine.client.inspect_container, container)

    async def _with_result(self, container: Container, task: TaskRecord) -> TaskRecord:
        """Add the worker's result, or the last line of its stderr if it left none."""
        reading = self._engine.reading(task.account)
        content = await reading.call_if_present(self._read_result, container.id)
        if len(content or b"") > _RESULT_MAX_BYTES:
            return dataclasses.replace(task, output_omitted=True)
        result = parse_json(content)
        if result is not None or task.error is None:
            return apply_result(task, result)
        logs = self._engine.client.logs
        line = await reading.call_if_present(logs, container.id, stdout=False, tail=1)
        text = (line or b"").decode(errors="replace").strip()
        if not text:
            return task
        message = f"{task.error['message']}: {text[:_STDERR_LINE_MAX_CHARS]}"
        return dataclasses.replace(task, error={**task.error, "message": message})

    def _read_result(self, container_id: str) -> bytes | None:
        with contextlib.closing(self._archive(container_id, "result.json")) as archive:
            file = archive.only_file()
            return file.read(_RESULT_MAX_BYTES + 1) if file is not None else None

    def forget(self, container: Container) -> None:
        """Drop what is cached about a container that was removed."""
        self._ended.pop((container.id, container.name), None)
        self._files.pop(container.id, None)
        self._ready.pop(container.id, None)

    # -- streams

    async def is_ready(self, task: TaskRecord) -> bool:
        """Whether viewers can connect to a running task: its worker's log has `stream.ready`."""
        container = Container.of(task)
        if container.id in self._ready:
            return True
        # The event may have been rotated out of the log of a task that runs for long.
        reading = self._engine.reading(task.account)
        if _past_start_limit(task) or await reading.call_if_present(
            self._log_has_ready_event, container.id
        ):
            _cache(self._ready, container.id, None)
            return True
        return False

    def _log_has_ready_event(self, container_id: str) -> bool:
        log = self._engine.client.logs(
            container_id, stdout=True, stderr=False, stream=True, follow=False
        )
        head = b""
        with contextlib.closing(log):
            for chunk in log:
                head += chunk
                if len(head) >= _READY_LOG_MAX_BYTES:
                    break
        return _READY_EVENT in head

    # -- artifacts

    async def files(self, container: Container) -> Sequence[Artifact]:
        """The files that the task has written so far."""
        if container.state == "created":
            return []
        found = self._files.get(container.id)
        if found is None:
            reading = self._engine.reading(container.labels[ACCOUNT_LABEL])
            found = await reading.call_if_present(self._list_files, container.id) or []
            if container.ended:
                _cache(self._files, container.id, found)
        return found

    def _list_files(self, container_id: str) -> list[Artifact]:
        with contextlib.closing(self._archive(container_id)) as archive:
            return archive.files()

    async def open_file(self, container: Container, name: str) -> AsyncIterator[bytes] | None:
        """One file's content, streamed from the engine."""
        # Only listed names: the engine follows links, and no part of a listed name is a link.
        if not is_valid_name(name) or name not in {
            each.name for each in await self.files(container)
        }:
            return None
        reading = self._engine.reading(container.labels[ACCOUNT_LABEL])
        archive = await reading.call_if_present(self._archive, container.id, name)
        return None if archive is None else _pieces(reading, archive)

    def _archive(self, container_id: str, name: str = "") -> Archive:
        chunks, _ = self._engine.client.get_archive(container_id, f"{ARTIFACTS_PATH}/{name}")
        return Archive(chunks)


async def _pieces(reading: Calls, archive: Archive) -> AsyncIterator[bytes]:
    """No thread is in use while the client of a piece is slow."""
    try:
        file = await reading.call_once(archive.only_file)
        while file is not None and (piece := await reading.call_once(file.read, _PIECE_BYTES)):
            yield piece
    finally:
        archive.close()


def _unreadable(container: Container, error: Exception) -> TaskRecord:
    status = TaskStatus.QUEUED if container.queued else TaskStatus.RUNNING
    return TaskRecord(
        task_id=container.task_id,
        account=container.labels[ACCOUNT_LABEL],
        endpoint_name=container.labels[ENDPOINT_LABEL],
        status=TaskStatus.FAILED if container.ended else status,
        created_at=container.created_at,
        digest=container.labels[DIGEST_LABEL],
        callback_url=container.labels[CALLBACK_URL_LABEL] or None,
        error={"type": UNREADABLE, "message": f"the container cannot be read: {describe(error)}"},
        handle=container,
    )


def _past_start_limit(task: TaskRecord) -> bool:
    if task.started_at is None:
        return False
    return datetime.now(UTC) - task.started_at > timedelta(seconds=_START_LIMIT_S)


def _cache(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Keep the newest entries; all of them can be read from the engine again."""
    cache[key] = value
    while len(cache) > _CACHED_MAX:
        cache.popitem(last=False)
