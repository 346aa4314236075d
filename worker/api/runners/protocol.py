"""Runners: what starts a worker for each task, and knows how each is doing.

The API holds no state of its own about tasks: whatever it tells about them, a runner told it. So a
runner whose state is elsewhere (an engine's, a cluster's) makes the whole API stateless.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    StreamKey = Callable[[str], bytes]
    """A task's stream key (32 bytes) from its id; what `make(settings, stream_key)` is given."""


class TaskStatus(StrEnum):
    """Where a task is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it will never change again."""
        return self not in (TaskStatus.QUEUED, TaskStatus.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """A task that is wanted.

    `task_id` is a UUID's text, made from account and Idempotency-Key where one was given; `digest`
    (64 hex digits) tells one request body from another, and is kept with the task.
    """

    task_id: str
    account: str
    endpoint_name: str
    file: Path
    inputs: dict[str, Any]
    timeout_s: float
    callback_url: str | None
    digest: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """What is known of a task; times are aware, and None until they have come."""

    task_id: str
    account: str
    endpoint_name: str
    status: TaskStatus
    created_at: datetime
    digest: str
    inputs: dict[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None
    callback_url: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    output: Any = None
    output_omitted: bool = False  # there was one, larger than what could be kept
    error: dict[str, Any] | None = None  # type, message, and perhaps traceback


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cursor:
    """A place in a list of tasks, newest first: just behind this task."""

    created_at: datetime
    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that a task left; its name may hold `/` for a file in a folder."""

    name: str
    size_bytes: int


class QueueFull(Exception):
    """No more tasks are taken for now."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


class RunnerUnavailable(Exception):
    """What runs the tasks (an engine, a cluster) does not answer; `str()` says why, in one line."""


class Runner(Protocol):
    """Starts tasks and knows how they are doing.

    Every method but `open` may raise RunnerUnavailable, after retries of its own. Two accounts
    never see each other: `find` does the same work for another's task as for none.
    """

    async def open(self) -> None:
        """Begin: find again what an earlier API started.

        Raises:
            WorkerError: it cannot begin; says what to do.
        """

    async def close(self) -> None:
        """End, and leave the tasks running."""

    async def ready(self) -> bool:
        """Whether a task could be started now."""

    async def start(self, request: TaskRequest) -> TaskRecord:
        """Take a task; a second request of the same task id returns the record of the first.

        Raises:
            QueueFull: not now.
        """

    async def cancel(self, task_id: str) -> None:
        """Ask for a task's end; nothing happens to one that has ended or is unknown."""

    async def find(self, account: str, task_id: str) -> TaskRecord | None:
        """A task of this account; None for another's, and for none."""

    async def list(
        self, account: str, *, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        """Tasks of this account, newest first; `inputs` and `output` may be left out."""

    async def counts(self) -> dict[TaskStatus, int]:
        """How many tasks of all accounts are in each status, for the metrics."""

    async def stream_address(self, task_id: str) -> str | None:
        """`ws://host:port` of the task's worker; None unless viewers can connect now."""

    async def artifacts(self, task_id: str) -> Sequence[Artifact]:
        """What a known task has left so far, sorted by name."""

    async def open_artifact(self, task_id: str, name: str) -> AsyncIterator[bytes] | None:
        """One artifact's bytes, in pieces; None when there is none of that name."""

    async def callbacks_due(self) -> Sequence[TaskRecord]:
        """Ended tasks whose callback is owed, lent to the caller for `CALLBACK_LEASE_S`.

        No other caller (another replica) gets them in that time.
        """

    async def callback_settled(self, task_id: str) -> None:
        """The callback was delivered, or given up: it is owed no more."""


CALLBACK_LEASE_S = 900.0
