"""Fakes: hand-written stand-ins for what a unit test cannot have."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from worker.api.accounts import Account
from worker.api.runners.protocol import (
    Artifact,
    Cursor,
    QueueFull,
    TaskRecord,
    TaskRequest,
    TaskStatus,
)


class FakeAccounts:
    """Keys without a file."""

    def __init__(self, keys: dict[str, Account]) -> None:
        self.keys = keys

    def authenticate(self, key: str) -> Account | None:
        return self.keys.get(key)


class FakeRunner:
    """A runner whose tasks do what the test says, and nothing by themselves."""

    def __init__(self, queue_max: int = 100) -> None:
        self.queue_max = queue_max
        self.requests: list[TaskRequest] = []
        self.records: dict[str, TaskRecord] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.addresses: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.lent: set[str] = set()
        self.settled: list[str] = []
        self.unavailable: Exception | None = None
        self.is_open = False

    # -- what the test says

    def set(self, task_id: str, status: TaskStatus, **fields: object) -> TaskRecord:
        """Put a task into a status; a running one can be watched."""
        record = dataclasses.replace(self.records[task_id], status=status, **fields)
        if status is TaskStatus.RUNNING:
            self.addresses.setdefault(task_id, "ws://127.0.0.1:6080")
        else:
            self.addresses.pop(task_id, None)
        self.records[task_id] = record
        return record

    # -- the protocol

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def ready(self) -> bool:
        return self.unavailable is None

    async def start(self, request: TaskRequest) -> TaskRecord:
        self._answer()
        if request.task_id not in self.records:
            waiting = [each for each in self.records.values() if each.status is TaskStatus.QUEUED]
            if len(waiting) >= self.queue_max:
                raise QueueFull(retry_after_s=7)
            self.requests.append(request)
            self.records[request.task_id] = TaskRecord(
                task_id=request.task_id,
                account=request.account,
                endpoint_name=request.endpoint_name,
                status=TaskStatus.QUEUED,
                created_at=request.created_at,
                digest=request.digest,
                inputs=request.inputs,
                timeout_s=request.timeout_s,
                callback_url=request.callback_url,
            )
        return self.records[request.task_id]

    async def cancel(self, task_id: str) -> None:
        self._answer()
        self.cancelled.append(task_id)
        record = self.records.get(task_id)
        if record is not None and not record.status.ended:
            self.set(task_id, TaskStatus.CANCELLED, finished_at=datetime.now(UTC))

    async def find(self, account: str, task_id: str) -> TaskRecord | None:
        self._answer()
        record = self.records.get(task_id)
        return record if record is not None and record.account == account else None

    async def list(
        self, account: str, *, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        self._answer()
        found = [
            record
            for record in self.records.values()
            if record.account == account
            and status in (None, record.status)
            and (before is None or _place(record) < before)
        ]
        return sorted(found, key=_place, reverse=True)[:limit]

    async def counts(self) -> dict[TaskStatus, int]:
        counts: dict[TaskStatus, int] = {}
        for record in self.records.values():
            counts[record.status] = counts.get(record.status, 0) + 1
        return counts

    async def stream_address(self, task_id: str) -> str | None:
        self._answer()
        return self.addresses.get(task_id)

    async def artifacts(self, task_id: str) -> Sequence[Artifact]:
        self._answer()
        files = self.files.get(task_id, {})
        return [Artifact(name=name, size_bytes=len(files[name])) for name in sorted(files)]

    async def open_artifact(self, task_id: str, name: str) -> AsyncIterator[bytes] | None:
        self._answer()
        content = self.files.get(task_id, {}).get(name)
        return None if content is None else _pieces(content)

    async def callbacks_due(self) -> Sequence[TaskRecord]:
        due = [
            record
            for record in self.records.values()
            if record.status.ended and record.callback_url and record.task_id not in self.lent
        ]
        self.lent.update(record.task_id for record in due)
        return due

    async def callback_settled(self, task_id: str) -> None:
        self.settled.append(task_id)

    def _answer(self) -> None:
        if self.unavailable is not None:
            raise self.unavailable


def _place(record: TaskRecord) -> Cursor:
    return Cursor(created_at=record.created_at, task_id=record.task_id)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content
