"""The result that a worker left, read by all runners.

A task can replace its worker's result with any file. So it is opened without following links and
without waiting, read up to a limit, and accepted only if the worker could have written it. No
function here raises because of a result's content: `Invalid` has the reason.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from worker.api import programs
from worker.api.runners import fields, files
from worker.api.runners.archive import EndsTooEarly
from worker.api.runners.machine_faults import prevents_reading
from worker.api.runners.protocol import TaskStatus
from worker.api.runners.threads import SharedSlots
from worker.outcome import EXIT_SIGINT, EXIT_SIGTERM, EXIT_SUCCESS
from worker.surroundings import interpreter
from worker.task import output as task_output

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

RESULT: Final = "result.json"
RESULT_MAX_BYTES: Final = task_output.MAX_BYTES + (1 << 20)
"""The largest output of a worker, or an error of two texts of 500,000 characters, with the rest."""
LONG_INTEGER_DIGITS: Final = 1000
LONG_INTEGERS_MAX_DIGITS: Final = 100_000
"""Of all integers together that have more than LONG_INTEGER_DIGITS."""
_PIECE_BYTES: Final = 1 << 20
_CANCELLED_CODES: Final = frozenset({EXIT_SIGTERM, EXIT_SIGINT})
_STATUSES: Final = {str(each): each for each in TaskStatus if each.ended}
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
# Possessive, and without a need for the closing quote: linear for any content.
_STRING_OR_MARK: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[,\[{]', re.DOTALL)
_MARKS: Final = (b",", b"[", b"{")
_OTHER_VALUES_MAX: Final = 1000
"""The values of a result besides its output."""
_SMALL_MAX_BYTES: Final = 1 << 16
"""Of a result that is parsed in this process, within 2 ms."""
_PARSING: Final = SharedSlots(4, 1)
"""For larger results, of which each takes up to 100 MB while it is parsed: one of an account."""
_PARSING_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A result that the worker could have written.

    Attributes:
        output: JSON text in UTF-8.
        started_at: in UTC; None if the result has none; `finished_at` too.
    """

    status: TaskStatus
    exit_code: int
    output: bytes
    output_omitted: bool
    error: dict[str, Any] | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """A result that the worker did not write."""

    why: str


Found = Result | Invalid | None
"""What was found in a result's place; None: nothing."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_file(folder: Path, *, account: str = "") -> Found:
    """The result in a folder of this machine; does not follow links and does not wait for them.

    Args:
        folder: the task's artifacts.
        account: whose large results are parsed one after the other.

    Raises:
        OSError: the machine prevents that it is read (`machine_faults`).
    """
    try:
        at = os.open(folder, files.READ_FOLDER)
        try:
            file = files.regular_file(os.open(RESULT, files.READ_FILE, dir_fd=at))
        finally:
            os.close(at)
    except FileNotFoundError:
        return None
    except OSError as error:
        if prevents_reading(error):
            raise
        return Invalid(why=f"it is not a regular file that can be read: {error.strerror}")
    if file is None:
        return Invalid(why="it is not a regular file")
    with file:
        if os.fstat(file.fileno()).st_size > RESULT_MAX_BYTES:
            return _TOO_LARGE
        try:
            return read_stream(file, account=account)
        except OSError as error:
            if prevents_reading(error):
                raise
            return Invalid(why=f"it cannot be read: {error.strerror}")


def read_stream(file: _Readable, *, account: str = "") -> Result | Invalid:
    """The result in a stream, of which RESULT_MAX_BYTES are read; errors of reading are raised."""
    content = bytearray()
    try:
        while piece := file.read(_PIECE_BYTES):
            content += piece
            if len(content) > RESULT_MAX_BYTES:
                return _TOO_LARGE
    except EndsTooEarly:
        return Invalid(why="it ends too early")
    return parse(bytes(content), account=account)


def parse(content: bytes, *, account: str = "") -> Result | Invalid:
    """The result that these bytes are (`result.json`, or the part in a termination message)."""
    if len(content) > RESULT_MAX_BYTES:
        return _TOO_LARGE
    if len(content) > _SMALL_MAX_BYTES:
        with _PARSING.of(account):
            return _parsed_elsewhere(content)
    return _parsed(content)


def _parsed(content: bytes) -> Result | Invalid:
    try:
        return _result(_document(content))
    except _Refused as refused:
        return Invalid(why=str(refused))


def _parsed_elsewhere(content: bytes) -> Result | Invalid:
    """Parse in another process: in a thread of this one, everything else would wait for it."""
    argv = interpreter.command(__spec__.name)
    try:
        returncode, found_text = programs.run(argv, content, limit_s=_PARSING_LIMIT_S)
    except programs.TookTooLong:
        return Invalid(why=f"it could not be parsed within {_PARSING_LIMIT_S:g} s")
    if returncode:
        return Invalid(why=f"it could not be parsed: the process ended with {returncode}")
    head, _, output = found_text.partition(b"\n")
    found = json.loads(head)
    if "why" in found:
        return Invalid(**found)
    for name in ("started_at", "finished_at"):
        found[name] = fields.time_of(found[name])
    return Result(**{**found, "status": _STATUSES[found["status"]], "output": output})


def main() -> None:
    """Parse the result on stdin; print its fields as a line of JSON, followed by its output."""
    found = _parsed(sys.stdin.buffer.read())
    values = {each.name: getattr(found, each.name) for each in dataclasses.fields(found)}
    output = values.pop("output", b"")
    for name in ("started_at", "finished_at"):
        if values.get(name) is not None:
            values[name] = values[name].isoformat()
    sys.stdout.buffer.write(json.dumps(values).encode() + b"\n" + output)


class _Refused(Exception):
    """The content is not a result; the text states why, without any of the content."""


_TOO_LARGE: Final = Invalid(why=f"it is larger than {RESULT_MAX_BYTES} bytes")


class _Objects:
    """Makes the objects of a document; afterwards `repeated` is about the outermost one.

    In an output names may be repeated, and the last one counts: a dict with the keys 1 and "1" is
    written so.
    """

    def __init__(self) -> None:
        self.repeated = False

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        self.repeated = len(made) < len(pairs)
        return made


class _Integers:
    """Makes the integers of a document: a long one takes time in proportion to its square."""

    def __init__(self) -> None:
        self._digits = 0

    def __call__(self, text: str) -> int:
        if len(text) > LONG_INTEGER_DIGITS:
            self._digits += len(text)
            if self._digits > LONG_INTEGERS_MAX_DIGITS:
                raise _Refused("it has too many long integers")
        return int(text)


def _document(content: bytes) -> dict[str, Any]:
    """The parsed content; every string and number in it can be sent as JSON."""
    # Before parsing: a value takes up to 40 times the memory of its text.
    values_max = task_output.MAX_VALUES + _OTHER_VALUES_MAX
    if _has_more_values(content, values_max):
        raise _Refused(f"it has more than {task_output.MAX_VALUES} values")
    objects, integers = _Objects(), _Integers()
    try:
        text = content.decode()
        document = json.loads(
            text, parse_constant=_refuse, parse_int=integers, object_pairs_hook=objects
        )
    except UnicodeDecodeError:
        raise _Refused("it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _Refused(_why(error)) from None
    if not isinstance(document, dict):
        raise _Refused("it is not a JSON object")
    if objects.repeated:
        raise _Refused("a name is repeated")
    if task_output.nesting_depth(document) > task_output.MAX_DEPTH + 1:
        raise _Refused(f"it is nested more than {task_output.MAX_DEPTH} levels deep")
    try:
        # 1e999 is parsed as infinity, which JSON cannot represent.
        whole = json.dumps(document, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise _Refused("a number is too large") from None
    if _SURROGATE.search(text):
        document = json.loads(fields.sendable(whole))
    found: dict[str, Any] = document
    return found


def _has_more_values(text: bytes, limit: int) -> bool:
    """Whether JSON text, which need not be valid, has more commas and brackets than this."""
    if sum(text.count(mark) for mark in _MARKS) <= limit:  # those in strings included
        return False
    count = 0
    for found in _STRING_OR_MARK.finditer(text):
        count += found[0] in _MARKS
        if count > limit:
            return True
    return False


def _refuse(_: str) -> NoReturn:
    raise _Refused("a number is not finite")


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON: {error.msg} at character {error.pos}"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return "a number is too long"  # sys.set_int_max_str_digits


def _result(document: dict[str, Any]) -> Result:
    for name in ("status", "exit_code", "output", "error"):
        if name not in document:
            raise _Refused(f"{name} is missing")
    status, exit_code = document["status"], fields.exit_code_of(document["exit_code"])
    if not isinstance(status, str) or status not in _STATUSES:
        raise _Refused(f"status is not one of {', '.join(_STATUSES)}")
    if exit_code is None:
        raise _Refused(f"exit_code is not an integer from 0 to {fields.EXIT_CODE_MAX}")
    if not is_consistent(_STATUSES[status], exit_code):
        raise _Refused(f"status {status} contradicts exit_code {exit_code}")
    omitted = document.get("output_omitted", False)
    if not isinstance(omitted, bool):
        raise _Refused("output_omitted is not a boolean")
    return Result(
        status=_STATUSES[status],
        exit_code=exit_code,
        output=json.dumps(document["output"], ensure_ascii=False).encode(),
        output_omitted=omitted,
        error=_error(document["error"], _STATUSES[status]),
        started_at=_time(document, "started_at"),
        finished_at=_time(document, "finished_at"),
    )


def _error(value: object, status: TaskStatus) -> dict[str, Any] | None:
    if value is None:
        if status is TaskStatus.FAILED:
            raise _Refused("status is failed and error is null")
        return None
    if status is not TaskStatus.FAILED:
        raise _Refused(f"status is {status} and error is not null")
    error = fields.error_of(value)
    if error is None:
        raise _Refused("error is not an object with the texts type, message and traceback")
    return error


def _time(document: dict[str, Any], name: str) -> datetime | None:
    if name not in document:
        return None
    moment = fields.time_of(document[name])
    if moment is None:
        raise _Refused(
            f"{name} is not a time as in RFC 3339, of the years {fields.YEAR_MIN} and later"
        )
    return moment


def is_consistent(status: TaskStatus, code: int) -> bool:
    """Whether a worker can have ended with both. A command's own 143 is `failed`."""
    if status is TaskStatus.CANCELLED:
        return code in _CANCELLED_CODES
    return (status is TaskStatus.SUCCESS) == (code == EXIT_SUCCESS)


if __name__ == "__main__":
    main()
