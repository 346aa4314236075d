"""Fields of stored or received JSON: each function returns a valid value, or none; none raises."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any, Final

from worker.task import output as task_output

ERROR_TYPE_MAX_CHARS: Final = 200
ERROR_TEXT_MAX_CHARS: Final = 500_000
EXIT_CODE_MAX: Final = 255
YEAR_MIN: Final = 1970
_YEAR_MAX: Final = 9998
_TIME_MAX_CHARS: Final = 40


def output_is_valid(text: str) -> bool:
    """Whether stored JSON text is an output that can be sent."""
    try:
        output = json.loads(text)
        json.dumps(output, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return task_output.nesting_depth(output) <= task_output.MAX_DEPTH


def error_of(value: object) -> dict[str, Any] | None:
    """An error as the API shows it, from stored or parsed JSON; None if it is not one."""
    if not isinstance(value, dict):
        return None
    kind, message, trace = (value.get(name) for name in ("type", "message", "traceback"))
    if not (isinstance(kind, str) and isinstance(message, str)):
        return None
    if not (trace is None or isinstance(trace, str)):
        return None
    error = {
        "type": sendable(kind[:ERROR_TYPE_MAX_CHARS]),
        "message": sendable(message[:ERROR_TEXT_MAX_CHARS]),
    }
    return error if trace is None else error | {"traceback": sendable(trace[:ERROR_TEXT_MAX_CHARS])}


def sendable(text: str) -> str:
    """The text with U+FFFD in place of each unpaired surrogate, which UTF-8 cannot represent."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def time_of(value: object) -> datetime | None:
    """An RFC 3339 time with its offset, in UTC; None for everything else, and absurd years."""
    if not isinstance(value, str) or len(value) > _TIME_MAX_CHARS:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None or not YEAR_MIN <= moment.year <= _YEAR_MAX:
            return None
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def inputs_of(text: object) -> dict[str, Any]:
    """The inputs in stored JSON text; empty if it is not a JSON object."""
    try:
        inputs = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        inputs = None
    return inputs if isinstance(inputs, dict) else {}


def seconds_of(text: object) -> float | None:
    """A stored duration; None if it is not a finite number."""
    try:
        seconds = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def exit_code_of(value: object) -> int | None:
    """An exit code that the worker can have; None for everything else."""
    return value if type(value) is int and 0 <= value <= EXIT_CODE_MAX else None
