"""What the engine knows of the tasks' containers, put together and briefly remembered."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners.archive import Archive
from worker.api.runners.docker.container import (
    ARTIFACTS_PATH,
    NETWORK_LABEL,
    TASK_LABEL,
    Container,
    record,
)
from worker.api.runners.files import is_name
from worker.api.runners.results import parsed, with_result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker.api.runners.docker.engine import Engine
    from worker.api.runners.protocol import Artifact, TaskRecord

_REMEMBERED_MAX: Final = 10_000
_RESULT_MAX_BYTES: Final = 16 << 20
_PIECE_BYTES: Final = 256 << 10
_LINE_MAX_CHARS: Final = 500
_READY_MARK: Final = b'"stream.ready"'
_READY_LOG_MAX_BYTES: Final = 64 << 10
# A worker that has run for longer is ready: its session would else have failed (START_TIMEOUT_S).
_SURELY_READY_S: Final = 25.0


class Containers:
    """The containers of one network that were made for tasks."""

    def __init__(self, engine: Engine, network: str) -> None:
        self._engine = engine
        self._network = network
        self._ended: OrderedDict[tuple[str, str], TaskRecord] = OrderedDict()
        self._files: OrderedDict[str, Sequence[Artifact]] = OrderedDict()
        self._ready: OrderedDict[str, None] = OrderedDict()

    async def matching(self, **labels: str) -> list[Container]:
        """Those that carry these labels (`worker.` is put before each, `_` means `-`)."""
        wanted = [f"{NETWORK_LABEL}={self._network}", TASK_LABEL]
        wanted += [f"worker.{name.replace('_', '-')}={value}" for name, value in labels.items()]
        said = await self._engine.call_if_there(
            self._engine.client.containers, all=True, filters={"label": wanted}
        )
        return [Container.of(summary) for summary in said or ()]

    async def of_task(self, task_id: str) -> Container | None:
        """A task's container."""
        there = await self.matching(task_id=task_id)
        return there[0] if there else None

    # -- records

    async def records(self, containers: Sequence[Container]) -> list[TaskRecord]:
        """Those of them that are still there, in the same order."""
        known = await asyncio.gather(*(self.record(each) for each in containers))
        return [each for each in known if each is not None]

    async def record(self, container: Container) -> TaskRecord | None:
        """All that is known; None when it was removed meanwhile. What has ended stays as it is."""
        key = (container.id, container.name)
        remembered = self._ended.get(key)
        if remembered is not None:
            return remembered
        inspect = self._engine.client.inspect_container
        details = await self._engine.call_if_there(inspect, container.id)
        if details is None:
            return None
        known = record(container, details)
        if known.status.ended:
            if container.state != "created":
                known = await self._with_own_words(container, known)
            _remember(self._ended, key, known)
        return known

    async def _with_own_words(self, container: Container, known: TaskRecord) -> TaskRecord:
        """Add the worker's result; one that left none said why on stderr, last."""
        content = await self._engine.call_if_there(self._read_result, container.id)
        if len(content or b"") > _RESULT_MAX_BYTES:
            return dataclasses.replace(known, output_omitted=True)
        result = parsed(content)
        if result is not None or known.error is None:
            return with_result(known, result)
        client = self._engine.client
        said = await self._engine.call_if_there(client.logs, container.id, stdout=False, tail=1)
        text = (said or b"").decode(errors="replace").strip()
        if not text:
            return known
        error = {**known.error, "message": f"{known.error['message']}: {text[:_LINE_MAX_CHARS]}"}
        return dataclasses.replace(known, error=error)

    def _read_result(self, container_id: str) -> bytes | None:
        with contextlib.closing(self._archive(container_id, "result.json")) as archive:
            file = archive.only_file()
            return file.read(_RESULT_MAX_BYTES + 1) if file is not None else None

    def forget(self, container: Container) -> None:
        """It is removed."""
        self._ended.pop((container.id, container.name), None)
        self._files.pop(container.id, None)
        self._ready.pop(container.id, None)

    # -- streams

    async def is_ready(self, container: Container) -> bool:
        """Whether viewers can connect: the worker's log says when."""
        if container.id in self._ready:
            return True
        said = await self._engine.call_if_there(self._says_ready, container.id)
        if said or await self._surely_ready(container):
            _remember(self._ready, container.id, None)
            return True
        return False

    async def _surely_ready(self, container: Container) -> bool:
        """A log that was rotated away says nothing any more."""
        known = await self.record(container)
        if known is None or known.status.ended or known.started_at is None:
            return False
        return datetime.now(UTC) - known.started_at > timedelta(seconds=_SURELY_READY_S)

    def _says_ready(self, container_id: str) -> bool:
        log = self._engine.client.logs(
            container_id, stdout=True, stderr=False, stream=True, follow=False
        )
        said = b""
        for chunk in log:
            said += chunk if len(said) < _READY_LOG_MAX_BYTES else b""
        return _READY_MARK in said

    # -- artifacts

    async def files(self, container: Container) -> Sequence[Artifact]:
        """What the task has left so far."""
        if container.state == "created":
            return []
        known = self._files.get(container.id)
        if known is None:
            known = await self._engine.call_if_there(self._list_files, container.id) or []
            if container.ended:
                _remember(self._files, container.id, known)
        return known

    def _list_files(self, container_id: str) -> list[Artifact]:
        with contextlib.closing(self._archive(container_id)) as archive:
            return archive.files()

    async def open_file(self, container: Container, name: str) -> AsyncIterator[bytes] | None:
        """One file's bytes, straight from the engine."""
        # Only what the list shows: so no part of the name can be a link.
        if not is_name(name) or name not in {each.name for each in await self.files(container)}:
            return None
        archive = await self._engine.call_if_there(self._archive, container.id, name)
        return None if archive is None else self._pieces(archive)

    async def _pieces(self, archive: Archive) -> AsyncIterator[bytes]:
        try:
            file = await self._engine.call_once(archive.only_file)
            while file is not None and (
                piece := await self._engine.call_once(file.read, _PIECE_BYTES)
            ):
                yield piece
        finally:
            archive.close()

    def _archive(self, container_id: str, name: str = "") -> Archive:
        chunks, _ = self._engine.client.get_archive(container_id, f"{ARTIFACTS_PATH}/{name}")
        return Archive(chunks)


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Keep the newest; all of it can be asked of the engine again."""
    memory[key] = value
    while len(memory) > _REMEMBERED_MAX:
        memory.popitem(last=False)
