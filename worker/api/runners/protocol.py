"""The interface between the API and what runs its tasks.

The API itself keeps no state about tasks: all that it reports comes from a runner. With a runner
whose state is in an engine or a cluster, the whole API is stateless.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    StreamKey = Callable[[str], bytes]
    """Derives a task's stream key (32 bytes) from its id; an argument of each runner's `make`."""

CALLBACK_LEASE_S: Final = 900.0
NOT_ENDED: Final = "The task has not ended completely; cancel it, or try again in some seconds"
"""Of NotRemovable."""


class TaskStatus(StrEnum):
    """The states of a task, as the API shows them."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self not in (TaskStatus.QUEUED, TaskStatus.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """What a client asked for.

    `task_id` is a UUID's text, derived from account and Idempotency-Key where a key was given.
    `digest` (64 hex digits) identifies the request's body and is stored with the task.
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


NULL: Final = b"null"
"""JSON text: the output of a task that has none."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cursor:
    """A position in a list of tasks, newest first: directly behind this task."""

    created_at: datetime
    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task's state when it was read; times are aware, and None until they are reached.

    `error` has the keys `type` and `message`, and perhaps `traceback`. `output` is JSON text in
    UTF-8, since to parse the largest one delays all other requests by 0.3 s. `output_omitted` is
    true if it was too large to be stored. `handle` belongs to the runner that made the record: what
    it read of the task, so that it need not read it again.
    """

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
    output: bytes = NULL
    output_omitted: bool = False
    error: dict[str, Any] | None = None
    handle: Any = field(default=None, compare=False, repr=False)

    @property
    def cursor(self) -> Cursor:
        """The task's position in a list."""
        return Cursor(created_at=self.created_at, task_id=self.task_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that a task wrote; its name contains `/` if it is in a subfolder."""

    name: str
    size_bytes: int


class QueueFull(Exception):
    """The queue has reached its limit; a request may be repeated after `retry_after_s`.

    `account_max` is the account's own limit if that was reached, None if the limit of all was.
    """

    def __init__(self, retry_after_s: int, *, account_max: int | None = None) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s
        self.account_max = account_max


class AccountFull(Exception):
    """The files of an account's tasks have reached its limit; the text states which.

    A request may be repeated after `retry_after_s`.
    """

    def __init__(self, why: str, retry_after_s: int) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class NotRemovable(Exception):
    """A task cannot be removed now; the text is for the client."""


class AccountRefused(Exception):
    """Tasks of this account cannot be started; the text is for the client."""


class RunnerUnavailable(Exception):
    """The engine or cluster that runs the tasks does not answer; `str()` is the reason."""


class Runner(Protocol):
    """Starts tasks and reports their state.

    Every method but `open` may raise RunnerUnavailable, after retries of its own. Accounts are
    separate: `find` does the same work for another account's task as for one that does not exist.

    Methods that concern one task take a record that `find`, `list`, `start` or `lease_callbacks`
    returned. A runner reads again only what may have changed since in a way that matters.
    """

    async def open(self) -> None:
        """Begin; tasks that an earlier API process started are found again.

        Raises:
            WorkerError: the runner cannot begin; the text states what to do.
        """

    async def close(self) -> None:
        """End; the tasks continue to run."""

    async def ready(self) -> bool:
        """Whether a task could be started now."""

    async def start(self, request: TaskRequest) -> TaskRecord:
        """Queue a task; a request whose task id exists returns the existing task's record.

        Raises:
            QueueFull: the queue, or the account's part of it, has reached its limit.
            AccountFull: the files of the account's tasks have reached its limit.
        """

    async def cancel(self, task: TaskRecord) -> None:
        """Request a task's end; without effect if it has ended or was removed."""

    async def remove(self, task: TaskRecord) -> None:
        """Remove an ended task with its files; without effect if that was done already.

        A pending callback is not delivered any more.

        Raises:
            NotRemovable: it has not ended, or not completely.
        """

    async def find(self, account: str, task_id: str, *, summary: bool = False) -> TaskRecord | None:
        """This account's task of this id; None if the account has none.

        Args:
            account: the account.
            task_id: the task's id.
            summary: inputs, output and error, which may be large, are not needed.
        """

    async def list(
        self, account: str, *, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        """This account's tasks, newest first; `inputs` and `output` may be missing."""

    async def counts(self) -> dict[TaskStatus, int]:
        """The number of tasks in each status, over all accounts, for the metrics."""

    async def stream_address(self, task: TaskRecord) -> str | None:
        """`ws://host:port` of the task's worker; None unless viewers can connect now."""

    async def artifacts(self, task: TaskRecord) -> Sequence[Artifact]:
        """The files that the task has written so far, sorted by name."""

    async def open_artifact(self, task: TaskRecord, name: str) -> AsyncIterator[bytes] | None:
        """One artifact's content, in pieces; None if no artifact has that name."""

    async def lease_callbacks(self) -> Sequence[TaskRecord]:
        """Ended tasks whose callback is pending, leased to the caller for `CALLBACK_LEASE_S`.

        No other caller (in another replica) gets them during that time.
        """

    async def finish_callback(self, task: TaskRecord) -> None:
        """Record that a leased callback was delivered or has failed; it is pending no more."""
