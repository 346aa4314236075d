"""Reads tasks' containers from the engine: records, readiness, artifacts; caches what is final."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners import ends, results
from worker.api.runners.archive import Archive, MemberFile
from worker.api.runners.docker.cache import Cache
from worker.api.runners.docker.container import (
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
from worker.api.runners.protocol import NULL, RunnerUnavailable, TaskRecord, TaskStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence

    from worker.api.runners.background import Loops
    from worker.api.runners.docker.engine import Calls, Engine
    from worker.api.runners.protocol import Artifact
    from worker.api.runners.results import Found

UNREADABLE: Final = "TaskUnreadable"
"""The type of the error of a task whose container is not as the runner creates them."""
_READING: Final = "records"
_WHOLE_MAX_BYTES: Final = 64 << 10
"""Of a record that is cached with its output and its error."""
_RECORD_BYTES: Final = 1000
_FILE_BYTES: Final = 200
_PIECE_BYTES: Final = 256 << 10
_STDERR_LINE_MAX_BYTES: Final = 8 << 10
_STDERR_LINE_MAX_CHARS: Final = 500
_READY_EVENT: Final = b'"stream.ready"'
_READY_LOG_MAX_BYTES: Final = 64 << 10
# A worker's session fails if it is not ready within START_TIMEOUT_S; one that has run longer is.
_START_LIMIT_S: Final = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """An ended task's record, without a large output or error; the whole one, if it is small."""

    summary: TaskRecord
    whole: TaskRecord | None


class TaskContainers:
    """The tasks' containers of one network."""

    def __init__(self, engine: Engine, network: str, loops: Loops) -> None:
        self._engine = engine
        self._network = network
        self._loops = loops
        self._ended: Cache[tuple[str, str], _Ended] = Cache()
        self._files: Cache[str, Sequence[Artifact]] = Cache()
        self._ready: Cache[str, bool] = Cache()

    async def matching(self, **labels: str) -> list[Container]:
        """The containers with these labels (`worker.` is prefixed, `_` stands for `-`)."""
        selected = [f"{NETWORK_LABEL}={self._network}", TASK_LABEL]
        selected += [f"worker.{name.replace('_', '-')}={value}" for name, value in labels.items()]
        calls = self._engine.of(labels["account"]) if "account" in labels else self._engine
        summaries = await calls.call_if_present(
            self._engine.client.containers, all=True, filters={"label": selected}
        )
        found = []
        for summary in summaries or ():
            # Other clients' containers may have these labels.
            with self._loops.handling(_READING, str(summary.get("Id"))):
                container = Container.from_list(summary)
                if container.is_task:
                    found.append(container)
        return found

    async def of_task(self, task_id: str) -> Container | None:
        """A task's container."""
        found = await self.matching(task_id=task_id)
        return found[0] if found else None

    # -- records

    async def records(self, containers: Sequence[Container]) -> list[TaskRecord]:
        """The records of those containers that still exist, in the same order.

        Large outputs and errors are left out, and so are results that the engine does not give.
        """
        found = await asyncio.gather(*(self._summary(each) for each in containers))
        return [each for each in found if each is not None]

    async def _summary(self, container: Container) -> TaskRecord | None:
        cached = self._ended.get(_key(container))
        if cached is not None:
            return cached.summary
        return await self._readable(container, self._read_summary(container))

    async def _read_summary(self, container: Container) -> TaskRecord | None:
        task = await self._without_result(container)
        if task is None or not _has_result(container):
            return task
        try:
            return (await self._with_result(container, task)).summary
        except RunnerUnavailable:
            return dataclasses.replace(task, output_omitted=True)

    async def record(self, container: Container) -> TaskRecord | None:
        """The task's whole record; None if the container was removed. An ended task's is cached.

        The record of a container that cannot be read has the error UNREADABLE.
        """
        cached = self._ended.get(_key(container))
        if cached is not None and cached.whole is not None:
            return cached.whole
        return await self._readable(container, self._read_record(container))

    async def _readable(
        self, container: Container, reading: Awaitable[TaskRecord | None]
    ) -> TaskRecord | None:
        try:
            return await reading
        except Exception as error:  # any: the records of other tasks are not affected
            if is_machine_fault(error):
                raise
            self._loops.skipped(_READING, container.task_id, error)
            task = _unreadable(container, error)
        if task.status.ended:
            self._cache_small(container, task)
        return task

    def _cache_small(self, container: Container, task: TaskRecord) -> None:
        ended = _Ended(summary=task, whole=task)
        self._ended.add(_key(container), ended, size_bytes=_RECORD_BYTES)

    async def _read_record(self, container: Container) -> TaskRecord | None:
        task = await self._without_result(container)
        if task is None or not _has_result(container):
            return task
        return (await self._with_result(container, task)).whole

    async def _without_result(self, container: Container) -> TaskRecord | None:
        details = await self._inspect(container.id, container.account)
        if details is None:
            return None
        task = record(container, details)
        if task.status.ended and not _has_result(container):
            self._cache_small(container, task)
        return task

    async def without_result(self, container: Container) -> TaskRecord | None:
        """The task's record, of an ended one perhaps without what its result states."""
        cached = self._ended.get(_key(container))
        if cached is not None:
            return cached.summary
        return await self._readable(container, self._without_result(container))

    async def created_record(self, name: str, account: str) -> TaskRecord | None:
        """The record of a container that was created under this name; one call to the engine."""
        details = await self._inspect(name, account)
        if details is None:
            return None
        container = Container.from_inspect(details)
        labels = (container.labels.get(NETWORK_LABEL), container.labels.get(TASK_LABEL))
        is_own = container.is_task and labels == (self._network, name)
        return record(container, details) if is_own else None

    async def _inspect(self, container: str, account: str) -> Any:
        inspect = self._engine.client.inspect_container
        return await self._engine.of(account).call_if_present(inspect, container)

    async def _with_result(self, container: Container, task: TaskRecord) -> _Ended:
        """Add the worker's result, or the last line of its stderr if it left none; cache it."""
        reading = self._engine.reading(container.account)
        read = await reading.call_if_present(self._read_result, container)
        found, size_bytes = read or (None, 0)
        # The code of an overdue container is the watchdog's.
        task = ends.apply(task, found, is_exit_code=not container.overdue)
        if found is None and task.error is not None:
            line = await reading.call_if_present(self._last_line, container.id)
            if line:
                message = f"{task.error['message']}: {line}"
                task = dataclasses.replace(task, error={**task.error, "message": message})
        ended = _Ended(summary=task, whole=task)
        cached = ended
        if size_bytes > _WHOLE_MAX_BYTES:
            summary = dataclasses.replace(task, output=NULL, error=None)
            ended = _Ended(summary=summary, whole=task)
            cached = _Ended(summary=summary, whole=None)
        cached_bytes = _RECORD_BYTES + (size_bytes if cached.whole is not None else 0)
        self._ended.add(_key(container), cached, size_bytes=cached_bytes)
        return ended

    def _read_result(self, container: Container) -> tuple[Found, int]:
        """What is in the result's place, and its size in bytes."""
        with contextlib.closing(self._archive(container.id, results.RESULT)) as archive:
            file = archive.find(results.RESULT)
            if file is None:
                return results.Invalid(why="it is not a regular file"), 0
            size_bytes = file.left_bytes
            return results.read_stream(file, account=container.account), size_bytes

    def _last_line(self, container_id: str) -> str:
        """The beginning of the last line of the worker's stderr."""
        client = self._engine.client
        log = client.logs(container_id, stdout=False, stream=True, follow=False, tail=1)
        line = _beginning(log, _STDERR_LINE_MAX_BYTES).decode(errors="replace")
        return line.strip()[:_STDERR_LINE_MAX_CHARS]

    def forget(self, container: Container) -> None:
        """Drop what is cached about a container that was removed."""
        self._ended.remove(_key(container))
        self._files.remove(container.id)
        self._ready.remove(container.id)

    # -- streams

    async def is_ready(self, task: TaskRecord) -> bool:
        """Whether viewers can connect to a running task: its worker's log has `stream.ready`."""
        container = Container.of(task)
        if self._ready.get(container.id):
            return True
        # The event may have been rotated out of the log of a task that runs for long.
        reading = self._engine.reading(task.account)
        if _past_start_limit(task) or await reading.call_if_present(
            self._log_has_ready_event, container.id
        ):
            self._ready.add(container.id, True, size_bytes=0)
            return True
        return False

    def _log_has_ready_event(self, container_id: str) -> bool:
        log = self._engine.client.logs(
            container_id, stdout=True, stderr=False, stream=True, follow=False
        )
        return _READY_EVENT in _beginning(log, _READY_LOG_MAX_BYTES)

    # -- artifacts

    async def files(self, container: Container) -> Sequence[Artifact]:
        """The files that the task has written so far."""
        if container.state == "created":
            return []
        found = self._files.get(container.id)
        if found is None:
            reading = self._engine.reading(container.account)
            found = await reading.call_if_present(self._list_files, container.id) or []
            if container.ended:
                self._files.add(container.id, found, size_bytes=_list_bytes(found))
        return found

    def _list_files(self, container_id: str) -> Sequence[Artifact]:
        with contextlib.closing(self._archive(container_id)) as archive:
            return archive.files()

    async def open_file(self, container: Container, name: str) -> AsyncIterator[bytes] | None:
        """One file's content, streamed from the engine."""
        if container.state == "created" or not is_valid_name(name):
            return None
        reading = self._engine.reading(container.account)
        opened = await reading.call_if_present(self._find_file, container.id, name)
        return None if opened is None else _pieces(reading, *opened)

    def _find_file(self, container_id: str, name: str) -> tuple[Archive, MemberFile] | None:
        """Look for the file in the archive of what is at the beginning of its name.

        The engine follows a link in a path unless it is the last part, and does not follow links
        inside what it archives. So a file that is found is below the artifacts folder.
        """
        archive = self._archive(container_id, name.partition("/")[0])
        try:
            file = archive.find(name)
        except BaseException:
            archive.close()
            raise
        if file is None:
            archive.close()
            return None
        return archive, file

    def _archive(self, container_id: str, name: str = "") -> Archive:
        return Archive(self._engine.read_archive(container_id, f"{ARTIFACTS_PATH}/{name}"))


async def _pieces(reading: Calls, archive: Archive, file: MemberFile) -> AsyncIterator[bytes]:
    """No thread is in use while the client of a piece is slow."""
    try:
        while piece := await reading.call_once(file.read, _PIECE_BYTES):
            yield piece
    finally:
        archive.close()


def _unreadable(container: Container, error: Exception) -> TaskRecord:
    status = TaskStatus.QUEUED if container.queued else TaskStatus.RUNNING
    return TaskRecord(
        task_id=container.task_id,
        account=container.account,
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


def _has_result(container: Container) -> bool:
    return container.ended and container.state != "created"


def _key(container: Container) -> tuple[str, str]:
    return container.id, container.name


def _beginning(chunks: Iterator[bytes], size_bytes: int) -> bytes:
    """The first bytes of an answer; the rest is dropped, so that the connection can be reused."""
    head = b""
    for chunk in chunks:
        head += chunk[: size_bytes - len(head)]
    return head


def _list_bytes(files: Sequence[Artifact]) -> int:
    return _RECORD_BYTES + sum(len(each.name) + _FILE_BYTES for each in files)
