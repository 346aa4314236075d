"""The result that a worker in a container wrote, applied to its task's record if it is valid."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from worker.api.runners.protocol import TaskStatus

if TYPE_CHECKING:
    from worker.api.runners.protocol import TaskRecord


def parse_json(content: bytes | str | None) -> Any:
    """The parsed content; None if it is not JSON."""
    try:
        return json.loads(content or "null")
    except ValueError:
        return None


def apply_result(record: TaskRecord, result: Any) -> TaskRecord:
    """The record with this result; unchanged if the result, which a task can forge, is invalid."""
    try:
        status = TaskStatus(result["status"])
        output, error = result["output"], result["error"]
        exit_code = int(result["exit_code"])
    except (KeyError, TypeError, ValueError):
        return record
    has_error = isinstance(error, dict) and {"type", "message"} <= error.keys()
    if not status.ended or not (has_error or error is None):
        return record
    return dataclasses.replace(
        record,
        status=status,
        exit_code=exit_code,
        output=output,
        output_omitted=result.get("output_omitted") is True,
        error=error,
    )
