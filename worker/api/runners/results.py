"""What a worker in a container wrote about its end: believed as far as it makes sense."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from worker.api.runners.protocol import TaskStatus

if TYPE_CHECKING:
    from worker.api.runners.protocol import TaskRecord


def parsed(content: bytes | str | None) -> Any:
    """JSON, or None for what is none."""
    try:
        return json.loads(content or "null")
    except ValueError:
        return None


def with_result(known: TaskRecord, result: Any) -> TaskRecord:
    """Add a result; the task could have written it itself, and what is none changes nothing."""
    try:
        status = TaskStatus(result["status"])
        output, error = result["output"], result["error"]
        exit_code = int(result["exit_code"])
    except (KeyError, TypeError, ValueError):
        return known
    told = isinstance(error, dict) and {"type", "message"} <= error.keys()
    if not status.ended or not (told or error is None):
        return known
    return dataclasses.replace(
        known,
        status=status,
        exit_code=exit_code,
        output=output,
        output_omitted=result.get("output_omitted") is True,
        error=error,
    )
