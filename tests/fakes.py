"""Hand-written fakes of what a unit test cannot use."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from worker.api.accounts import Account
from worker.api.runners.protocol import (
    NOT_ENDED,
    AccountFull,
    Artifact,
    Cursor,
    NotRemovable,
    QueueFull,
    TaskRecord,
    TaskRequest,
    TaskStatus,
)
from worker.errors import SettingError


class FakeAccounts:
    """Keys without a file."""

    def __init__(self, keys: dict[str, Account], *, error: SettingError | None = None) -> None:
        self.keys = keys
        self.error = error

    def authenticate(self, key: str) -> Account | None:
        return self.keys.get(key)


class FakeRunner:
    """A runner in memory; the test changes the tasks' states."""

    def __init__(self, queue_max: int = 100, account_max_queued: int = 100) -> None:
        self.queue_max = queue_max
        self.account_max_queued = account_max_queued
        self.full: dict[str, str] = {}
        self.requests: list[TaskRequest] = []
        self.records: dict[str, TaskRecord] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.addresses: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.leased: set[str] = set()
        self.notified: list[str] = []
        self.unavailable: Exception | None = None
        self.is_open = False

    # -- for the test

    def set(self, task_id: str, status: TaskStatus, **fields: Any) -> TaskRecord:
        """Change a task's status; viewers can connect to a running one."""
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
        self._check_available()
        if request.task_id not in self.records:
            queued = [each for each in self.records.values() if each.status is TaskStatus.QUEUED]
            if request.account in self.full:
                raise AccountFull(self.full[request.account], retry_after_s=7)
            if len(queued) >= self.queue_max:
                raise QueueFull(retry_after_s=7)
            if sum(each.account == request.account for each in queued) >= self.account_max_queued:
                raise QueueFull(retry_after_s=7, account_max=self.account_max_queued)
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

    async def cancel(self, task: TaskRecord) -> None:
        self._check_available()
        self.cancelled.append(task.task_id)
        current = self.records.get(task.task_id)
        if current is not None and not current.status.ended:
            self.set(task.task_id, TaskStatus.CANCELLED, finished_at=datetime.now(UTC))

    async def remove(self, task: TaskRecord) -> None:
        self._check_available()
        current = self.records.get(task.task_id)
        if current is not None and not current.status.ended:
            raise NotRemovable(NOT_ENDED)
        self.records.pop(task.task_id, None)

    async def find(self, account: str, task_id: str, *, summary: bool = False) -> TaskRecord | None:
        self._check_available()
        record = self.records.get(task_id)
        return record if record is not None and record.account == account else None

    async def list(
        self, account: str, *, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        self._check_available()
        found = [
            record
            for record in self.records.values()
            if record.account == account
            and status in (None, record.status)
            and (before is None or record.cursor < before)
        ]
        return sorted(found, key=lambda record: record.cursor, reverse=True)[:limit]

    async def counts(self) -> dict[TaskStatus, int]:
        self._check_available()
        return dict(Counter(record.status for record in self.records.values()))

    async def stream_address(self, task: TaskRecord) -> str | None:
        self._check_available()
        return self.addresses.get(task.task_id)

    async def artifacts(self, task: TaskRecord) -> Sequence[Artifact]:
        self._check_available()
        files = self.files.get(task.task_id, {})
        return [Artifact(name=name, size_bytes=len(files[name])) for name in sorted(files)]

    async def open_artifact(self, task: TaskRecord, name: str) -> AsyncIterator[bytes] | None:
        self._check_available()
        content = self.files.get(task.task_id, {}).get(name)
        return None if content is None else _pieces(content)

    async def lease_callbacks(self) -> Sequence[TaskRecord]:
        self._check_available()
        excluded = self.leased.union(self.notified)
        pending = [
            record
            for record in self.records.values()
            if record.status.ended and record.callback_url and record.task_id not in excluded
        ]
        self.leased.update(record.task_id for record in pending)
        return pending

    async def finish_callback(self, task: TaskRecord) -> None:
        self._check_available()
        self.notified.append(task.task_id)
        self.leased.discard(task.task_id)

    def _check_available(self) -> None:
        if self.unavailable is not None:
            raise self.unavailable


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content
