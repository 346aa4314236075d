"""How a task ended: what is known of its worker's end, and the result that the worker left.

The exit code that the operating system, the engine or the cluster reports is authoritative: a
result that contradicts it is the task's claim, and is not reported as the task's end.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners.protocol import NULL, TaskRecord, TaskStatus
from worker.api.runners.results import RESULT, Invalid, Result

if TYPE_CHECKING:
    from worker.api.runners.results import Found

INVALID_RESULT: Final = "InvalidResult"
_NO_RESULT: Final = frozenset({"WorkerLost", "WorkerDied"})
"""Errors that state only that there is no result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a task ended; `exit_code` is None if it is not known or there is none."""

    status: TaskStatus
    exit_code: int | None
    error: dict[str, Any] | None = None
    output: bytes = NULL
    output_omitted: bool = False


def settle(known: End, found: Found, *, is_exit_code: bool = True) -> End:
    """The end of a task from what is known of its worker's end, and the result that was found.

    Args:
        known: what is known.
        found: the result.
        is_exit_code: whether `known.exit_code` is that of the worker's process.
    """
    if found is None:
        return dataclasses.replace(known, output_omitted=known.status is TaskStatus.SUCCESS)
    if isinstance(found, Invalid):
        return _omitted(known, INVALID_RESULT, f"{RESULT} is invalid: {found.why}")
    if is_exit_code and known.exit_code is not None and found.exit_code != known.exit_code:
        return _contradicted(known, found)
    return End(
        status=found.status,
        exit_code=found.exit_code,
        error=found.error,
        output=found.output,
        output_omitted=found.output_omitted,
    )


def apply(record: TaskRecord, found: Found, *, is_exit_code: bool = True) -> TaskRecord:
    """The record of an ended task with the result that was found; see `settle`."""
    known = End(status=record.status, exit_code=record.exit_code, error=record.error)
    end = settle(known, found, is_exit_code=is_exit_code)
    return dataclasses.replace(
        record,
        status=end.status,
        exit_code=end.exit_code,
        error=end.error,
        output=end.output,
        output_omitted=end.output_omitted,
    )


def _contradicted(known: End, found: Result) -> End:
    """The result may be the worker's, if the worker was killed while it cleaned up."""
    if known.status is TaskStatus.CANCELLED:
        return known
    why = f"{RESULT} has exit_code {found.exit_code}, and the worker ended with {known.exit_code}"
    return _omitted(known, known.error["type"] if known.error else INVALID_RESULT, why)


def _omitted(known: End, kind: str, why: str) -> End:
    if known.error is not None and known.error["type"] not in _NO_RESULT:
        why = f"{why}; {known.error['message']}"
    return dataclasses.replace(known, output_omitted=True, error={"type": kind, "message": why})
