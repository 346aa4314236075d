"""A task's output: which values it may be."""

from __future__ import annotations

import json
from typing import Final

MAX_BYTES: Final = 16 * 1024 * 1024
# A deeper output could be written, but not read: pydantic, in the API, stops at 255 levels.
MAX_DEPTH: Final = 200
# Bounds the memory of the programs that parse a result: a value takes up to 40 bytes a character.
MAX_VALUES: Final = 1_000_000


def check(output: object) -> None:
    """Check that an output is JSON within the limits.

    Raises:
        TypeError: it is not JSON.
        ValueError: it is too large.
    """
    try:
        text = json.dumps(output, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = (
            f"the task's return value is not JSON: {error}; return dicts, lists, strings, "
            "finite numbers, booleans or None"
        )
        raise TypeError(message) from None
    if len(text) > MAX_BYTES:
        raise ValueError(
            f"the task's return value is larger than {MAX_BYTES} bytes; write it to a file in "
            "WORKER_ARTIFACTS_DIR instead"
        )
    if nesting_depth(output) > MAX_DEPTH:
        raise ValueError(
            f"the task's return value is nested more than {MAX_DEPTH} levels deep; return a "
            "flatter one, or write it to a file in WORKER_ARTIFACTS_DIR instead"
        )


def nesting_depth(output: object) -> int:
    """How many lists and dicts of a JSON value are inside each other; 0 for a plain value."""
    depth = 0
    level = [output]
    while level := [value for value in level if isinstance(value, (dict, list, tuple))]:
        depth += 1
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
        ]
    return depth
