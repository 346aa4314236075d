"""A task's output: which values it may be."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES: Final = 16 * 1024 * 1024
# A deeper output could be written, but not read: pydantic, in the API, stops at 255 levels.
MAX_DEPTH: Final = 200
# Bounds the memory of the programs that parse a result: a value takes up to 40 bytes a character.
MAX_VALUES: Final = 1_000_000
_QUOTES_BYTES: Final = 2


def check(output: object) -> str:
    """Check that an output is JSON within the limits; returns its JSON text.

    Raises:
        TypeError: it is not JSON.
        ValueError: it is too large.
    """
    _check_extent(output)
    try:
        text = json.dumps(output, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_json(str(error)) from None
    if len(text) > MAX_BYTES:
        raise _too_large()
    return text


def _check_extent(output: object) -> None:
    """Check depth, number of values, and a lower bound of the size, before the text is made.

    A value that is referred to many times counts each time, as in its JSON text.
    """
    size_bytes = count = 0
    path: list[tuple[Iterator[object], int]] = [(iter((output,)), 0)]
    inside: set[int] = set()
    while path:
        values, own = path[-1]
        for value in values:
            size_bytes += _QUOTES_BYTES + str.__len__(value) if isinstance(value, str) else 1
            count += 1
            if size_bytes > MAX_BYTES:
                raise _too_large()
            if count > MAX_VALUES:
                raise _too_many()
            if isinstance(value, (dict, list, tuple)):
                if id(value) in inside:
                    raise _not_json("it contains itself")
                if len(path) > MAX_DEPTH:
                    raise _too_deep()
                inside.add(id(value))
                path.append((_parts(value), id(value)))
                break
        else:
            path.pop()
            inside.discard(own)


def _parts(value: dict[object, object] | list[object] | tuple[object, ...]) -> Iterator[object]:
    """What is inside, by the methods of the built-in types: a subclass may have others."""
    match value:
        case dict():
            return itertools.chain(dict.keys(value), dict.values(value))
        case list():
            return list.__iter__(value)
        case _:
            return tuple.__iter__(value)


def _not_json(why: str) -> TypeError:
    return TypeError(
        f"the task's return value is not JSON: {why}; return dicts, lists, strings, "
        "finite numbers, booleans or None"
    )


def _too_large() -> ValueError:
    return ValueError(
        f"the task's return value is larger than {MAX_BYTES} bytes; write it to a file in "
        "WORKER_ARTIFACTS_DIR instead"
    )


def _too_many() -> ValueError:
    return ValueError(
        f"the task's return value has more than {MAX_VALUES} values; write it to a file in "
        "WORKER_ARTIFACTS_DIR instead"
    )


def _too_deep() -> ValueError:
    return ValueError(
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
