"""How a task of the local runner ended, from what its worker left."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners import ends, fields, results
from worker.api.runners.ends import End
from worker.api.runners.local.stored_task import TaskEnd
from worker.api.runners.protocol import TaskStatus
from worker.api.runners.results import Result
from worker.events import rfc3339
from worker.outcome import (
    ACCOUNT_DISK_FULL,
    EXIT_SIGNAL_BASE,
    EXIT_SIGTERM,
    EXIT_SUCCESS,
    EXIT_TIMEOUT,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.api.runners.local.stored_task import StoredTask
    from worker.api.runners.local.task_folder import TaskFolder

_STATUSES: Final = {str(each): each for each in TaskStatus if each.ended}


def of_finished_task(
    folder: TaskFolder, event: Mapping[str, Any], *, account: str = ""
) -> TaskEnd | None:
    """The end that the worker's event `task.finished` reports, with the output from its result.

    Returns None if it is not such an event. Blocks while a large result is parsed, of which there
    is one at a time for an account.
    """
    code = fields.exit_code_of(event.get("exit_code"))
    status = _STATUSES.get(str(event.get("status")))
    if code is None or status is None or not results.is_consistent(status, code):
        return None
    error = None
    if status is TaskStatus.FAILED:
        kind, _, message = str(event.get("error") or "Failed").partition(": ")
        error = fields.error_of({"type": kind, "message": message})
    known = End(status=status, exit_code=code, error=error)
    return _settled(known, folder, fields.time_of(event.get("time")), account)


def of_ended_worker(
    folder: TaskFolder, returncode: int | None, *, was_cancelled: bool, account: str = ""
) -> TaskEnd:
    """The end of a task whose worker reported none. Blocks while a large result is parsed.

    Args:
        folder: the task's folder.
        returncode: the worker's exit code (-N: signal N); None if it is unknown.
        was_cancelled: whether the task's end was requested.
        account: whose large results are parsed one after the other.
    """
    code = returncode
    if returncode is not None and returncode < 0:
        code = EXIT_SIGNAL_BASE - returncode
    if code == EXIT_SUCCESS:
        known = End(status=TaskStatus.SUCCESS, exit_code=code)
    elif was_cancelled:
        known = End(status=TaskStatus.CANCELLED, exit_code=code)
    else:
        known = End(status=TaskStatus.FAILED, exit_code=code, error=_died(folder, returncode))
    return _settled(known, folder, None, account)


def _settled(known: End, folder: TaskFolder, finished_at: datetime | None, account: str) -> TaskEnd:
    """The known end with the worker's result, whose times count if no others are known."""
    found = folder.result(account=account)
    end = ends.settle(known, found)
    now, started_at = datetime.now(UTC), None
    claimed = found.finished_at if isinstance(found, Result) else None
    finished_at = min(finished_at or claimed or now, now)
    if isinstance(found, Result) and found.started_at is not None:
        started_at = min(found.started_at, finished_at)
    return TaskEnd(
        status=end.status,
        started_at=None if started_at is None else rfc3339(started_at),
        finished_at=rfc3339(finished_at),
        exit_code=end.exit_code,
        output=end.output,
        output_omitted=end.output_omitted,
        error=end.error,
    )


def cancelled(exit_code: int | None = EXIT_SIGTERM) -> TaskEnd:
    """The end of a task whose worker wrote no result; None: it never ran."""
    return TaskEnd(
        status=TaskStatus.CANCELLED, finished_at=rfc3339(datetime.now(UTC)), exit_code=exit_code
    )


def _died(folder: TaskFolder, returncode: int | None) -> dict[str, Any]:
    how = "ended"
    if returncode is not None and returncode < 0:
        how = f"was killed by signal {-returncode}"
    tail = folder.stderr_tail()
    message = f"the worker {how} before it could write a result" + (f": {tail}" if tail else "")
    return {"type": "WorkerDied", "message": message}


def overdue(task: StoredTask) -> TaskEnd:
    """The end of a task whose worker the watchdog ended."""
    message = f"the worker still ran long after the task's timeout of {task.timeout_s:g} s"
    return _failed("WorkerOverdue", f"{message} and was ended", EXIT_TIMEOUT)


def disk_full(end: TaskEnd, why: str) -> TaskEnd:
    """The end of a task that was ended because its account's files exceed their limit."""
    if end.status is not TaskStatus.FAILED:
        return end  # it had succeeded or was cancelled before
    error = {"type": ACCOUNT_DISK_FULL, "message": f"the task was ended: {why}"}
    return dataclasses.replace(end, error=error)


def not_started(why: str) -> TaskEnd:
    """The end of a task whose worker could not be executed."""
    return _failed("WorkerNotStarted", f"the worker could not be started: {why}", None)


def not_followed(why: str) -> TaskEnd:
    """The end of a task whose worker was ended because the API could not follow it."""
    return _failed("WorkerNotFollowed", f"the API could not follow the worker: {why}", None)


def unreadable(why: str, returncode: int | None) -> TaskEnd:
    """The end of a task whose result could not be read or stored."""
    exit_code = returncode if returncode is None or returncode >= 0 else None
    return _failed("ResultUnreadable", f"the task's result cannot be used: {why}", exit_code)


def _failed(kind: str, message: str, exit_code: int | None) -> TaskEnd:
    return TaskEnd(
        status=TaskStatus.FAILED,
        finished_at=rfc3339(datetime.now(UTC)),
        exit_code=exit_code,
        error={"type": kind, "message": message},
    )
