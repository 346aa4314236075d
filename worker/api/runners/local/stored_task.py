"""Rows of the local runner's store: a task as the runner works on it, its end, its record."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners import fields
from worker.api.runners.machine_faults import describe
from worker.api.runners.protocol import NULL, TaskRecord, TaskStatus

if TYPE_CHECKING:
    import sqlite3

QUEUED: Final = "queued"
STARTING: Final = "starting"
"""The phase in which a worker may have been started and viewers cannot connect yet."""
SUMMARY: Final = (
    "task_id, account, endpoint_name, phase, created_at, digest, timeout_s, callback_url, "
    "started_at, finished_at, exit_code, output_omitted"
)
"""The columns of a record without inputs, output and error."""
WHOLE: Final = f"{SUMMARY}, inputs, CAST(output AS BLOB) AS output, error"
"""The columns of a record; the output's text is not decoded."""
UNREADABLE: Final = "TaskUnreadable"
"""The type of the error of a task whose row is invalid."""
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class UnreadableRow(Exception):
    """A row of the tasks is invalid; `number` is its key."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(number, why)
        self.number, self.why = number, why

    def __str__(self) -> str:
        return f"row {self.number}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTask:
    """A row of the local runner's tasks.

    Attributes:
        pid_started: in clock ticks since boot.
        port: where its worker listens for viewers.
        uid: its own user, from its start until it is cleaned up.
    """

    task_id: str
    file: Path
    inputs: dict[str, Any]
    timeout_s: float
    phase: str
    cancel: bool
    pid: int | None
    pid_started: int | None
    port: int | None = None
    uid: int | None = None
    account: str = ""

    @property
    def ended(self) -> bool:
        """Whether its end is stored; its worker may still be cleaning up."""
        return status_of(self.phase).ended


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnd:
    """How a task ended; times are RFC 3339 text."""

    status: TaskStatus
    started_at: str | None = None
    finished_at: str
    exit_code: int | None = None
    output: bytes = NULL
    output_omitted: bool = False
    error: dict[str, Any] | None = None


def sortable(when: datetime) -> str:
    """Text that sorts like the times themselves (all are in UTC)."""
    return when.isoformat(timespec="microseconds")


def status_of(phase: str) -> TaskStatus:
    """The status that clients see of a phase; FAILED for an invalid one."""
    if phase == STARTING:
        return TaskStatus.QUEUED
    try:
        return TaskStatus(phase)
    except ValueError:
        return TaskStatus.FAILED


def task_from(row: sqlite3.Row) -> StoredTask:
    """From a whole row.

    Raises:
        UnreadableRow: a value of the row is invalid.
    """
    try:
        inputs = json.loads(row["inputs"])
        _check(row, inputs)
        return StoredTask(
            task_id=row["task_id"],
            file=Path(row["file"]),
            inputs=inputs,
            timeout_s=float(row["timeout_s"]),
            phase=row["phase"],
            cancel=bool(row["cancel"]),
            pid=row["pid"],
            pid_started=row["pid_started"],
            port=row["port"],
            uid=row["uid"],
            account=row["account"],
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise UnreadableRow(row["number"], describe(error)) from error


def _check(row: sqlite3.Row, inputs: object) -> None:
    if row["phase"] != STARTING:
        TaskStatus(row["phase"])
    if not _is_file_name(row["task_id"]):
        raise ValueError("invalid task_id")
    if not isinstance(inputs, dict):
        raise TypeError("invalid inputs")
    numbers = ("pid", "pid_started", "port", "uid")
    if any(not isinstance(row[name], int | None) for name in numbers):
        raise TypeError(f"one of {', '.join(numbers)} is invalid")


def record_from(row: sqlite3.Row) -> TaskRecord:
    """From a row with at least the columns of SUMMARY.

    An earlier version stored times and errors that were not validated: such ones are left out. Of
    an invalid row the valid values are returned, with the error UNREADABLE.
    """
    try:
        return _record(row)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        return _record_of_invalid(row, describe(error))


def _record(row: sqlite3.Row) -> TaskRecord:
    names = row.keys()
    whole: dict[str, Any] = {
        name: json.loads(row[name])
        for name in ("inputs", "error")
        if name in names and row[name] is not None
    }
    if "output" in names and row["output"] is not None:
        whole["output"] = row["output"]
    if row["phase"] != STARTING:
        TaskStatus(row["phase"])
    if "error" in whole:
        whole["error"] = fields.error_of(whole["error"])
    return TaskRecord(
        task_id=row["task_id"],
        account=row["account"],
        endpoint_name=row["endpoint_name"],
        status=status_of(row["phase"]),
        created_at=datetime.fromisoformat(row["created_at"]).astimezone(UTC),
        digest=row["digest"],
        timeout_s=row["timeout_s"],
        callback_url=row["callback_url"],
        started_at=fields.time_of(row["started_at"]),
        finished_at=fields.time_of(row["finished_at"]),
        exit_code=row["exit_code"],
        output_omitted=bool(row["output_omitted"]),
        **whole,
    )


def _record_of_invalid(row: sqlite3.Row, why: str) -> TaskRecord:
    return TaskRecord(
        task_id=str(row["task_id"]),
        account=str(row["account"]),
        endpoint_name=str(row["endpoint_name"]),
        digest=str(row["digest"]),
        status=status_of(row["phase"]),
        created_at=fields.time_of(row["created_at"]) or _EPOCH,
        finished_at=fields.time_of(row["finished_at"]),
        callback_url=row["callback_url"],
        error={"type": UNREADABLE, "message": f"the stored task cannot be read: {why}"},
    )


def _is_file_name(text: object) -> bool:
    return isinstance(text, str) and text not in ("", ".", "..") and not {"/", "\0"} & set(text)
