"""How a task of the local runner ended, from what its worker left."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from worker.api.runners.local.stored_task import TaskEnd
from worker.api.runners.protocol import TaskStatus
from worker.events import rfc3339
from worker.outcome import EXIT_SIGNAL_BASE, EXIT_SIGTERM, EXIT_TIMEOUT

if TYPE_CHECKING:
    from worker.api.runners.local.stored_task import StoredTask
    from worker.api.runners.local.task_folder import Result, TaskFolder


def of_ended_worker(folder: TaskFolder, returncode: int | None, *, was_cancelled: bool) -> TaskEnd:
    """The end of a task from what its worker left.

    Args:
        folder: the task's folder.
        returncode: the worker's exit code (-N: signal N); None if it is unknown.
        was_cancelled: whether the task's end was requested.
    """
    result = folder.result()
    if result is not None:
        return from_result(result)
    if was_cancelled:
        return cancelled()
    return _died(folder, returncode)


def from_result(result: Result) -> TaskEnd:
    """The end that the worker wrote."""
    return TaskEnd(
        status=result.status,
        started_at=rfc3339(result.started_at),
        finished_at=rfc3339(result.finished_at),
        exit_code=result.exit_code,
        output=result.output,
        error=result.error,
    )


def cancelled(exit_code: int | None = EXIT_SIGTERM) -> TaskEnd:
    """The end of a task whose worker wrote no result; None: it never ran."""
    return TaskEnd(
        status=TaskStatus.CANCELLED, finished_at=rfc3339(datetime.now(UTC)), exit_code=exit_code
    )


def _died(folder: TaskFolder, returncode: int | None) -> TaskEnd:
    how, exit_code = "ended", returncode
    if returncode is not None and returncode < 0:
        how, exit_code = f"was killed by signal {-returncode}", EXIT_SIGNAL_BASE - returncode
    tail = folder.stderr_tail()
    message = f"the worker {how} before it could write a result" + (f": {tail}" if tail else "")
    return _failed("WorkerDied", message, exit_code)


def overdue(task: StoredTask) -> TaskEnd:
    """The end of a task whose worker the watchdog ended."""
    message = f"the worker still ran long after the task's timeout of {task.timeout_s:g} s"
    return _failed("WorkerOverdue", f"{message} and was ended", EXIT_TIMEOUT)


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
