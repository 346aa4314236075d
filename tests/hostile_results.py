"""What a task can leave in place of its worker's result: a list for the parser and all runners."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULT: dict[str, Any] = {
    "task_id": "t",
    "status": "failed",
    "exit_code": 1,
    "output": None,
    "error": {"type": "RuntimeError", "message": "failed on purpose", "traceback": None},
    "started_at": "2026-05-04T00:00:00.000Z",
    "finished_at": "2026-05-04T00:01:00.000Z",
    "duration_s": 60.0,
    "stages_ms": {"start": 400, "task": 60_000},
}
"""A result that a worker with exit code 1 writes."""


def result(**changes: Any) -> bytes:
    """The valid result with other fields; `...` removes one."""
    fields = {name: value for name, value in (RESULT | changes).items() if value is not ...}
    return json.dumps(fields).encode()


def error(**changes: Any) -> bytes:
    """The valid result with another error."""
    return result(error=RESULT["error"] | changes)


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


def raw(output: bytes) -> bytes:
    """The valid result with an output that `json` would not write."""
    return result(output="HERE").replace(b'"HERE"', output)


HOSTILE: dict[str, bytes] = {
    # not JSON, or not the object
    "empty": b"",
    "space": b" \n",
    "zeros": bytes(5000),
    "cut short": result()[:-20],
    "two documents": result() + result(),
    "brackets": b"[" * 4000,
    "many brackets": b"[" * 1_000_000,
    "braces": b'{"a":' * 4000,
    "list": b"[]",
    "null": b"null",
    "text": b'"success"',
    "number": b"1",
    "empty object": b"{}",
    # encodings
    "byte order mark": b"\xef\xbb\xbf" + result(),
    "UTF-16": result().decode().encode("utf-16"),
    "UTF-32": result().decode().encode("utf-32"),
    "Latin-1": result(output="?").replace(b"?", b"\xe4"),
    "encoded surrogate": result(output="?").replace(b"?", b"\xed\xa0\x80"),
    # numbers
    "infinite": raw(b"1e999"),
    "negative infinite": raw(b"[-1e999]"),
    "NaN": raw(b"NaN"),
    "Infinity": raw(b"[Infinity]"),
    "long integer": raw(b"9" * 100_000),
    "many long integers": raw(b"[" + b",".join([b"9" * 4300] * 100) + b"]"),
    # limits
    "nested 201 deep": result(output=nested(201)),
    "nested 260 deep": result(output=nested(260)),
    "nested 900 deep": result(output=nested(900)),
    "too many values": raw(b"[" + b"0," * 1_100_000 + b"0]"),
    "too large": result(output="x" * (18 << 20)),
    # fields
    "no status": result(status=...),
    "no exit code": result(exit_code=...),
    "no output": result(output=...),
    "no error": result(error=...),
    "unknown status": result(status="splendid"),
    "status running": result(status="running"),
    "status of a queued task": result(status="queued"),
    "status null": result(status=None),
    "status a list": result(status=["failed"]),
    "status an object": result(status={"failed": 1}),
    "status with a surrogate": result(status="failed\ud800"),
    "exit code true": result(exit_code=True),
    "exit code a text": result(exit_code="1"),
    "exit code a float": result(exit_code=1.0),
    "exit code negative": result(exit_code=-1),
    "exit code 256": result(exit_code=256),
    "exit code huge": result(exit_code=10**30),
    "exit code null": result(exit_code=None),
    "omitted a text": result(output_omitted="yes"),
    "omitted a number": result(output_omitted=1),
    "repeated name": result()[:-1] + b', "status": "failed"}',
    # errors
    "error without a type": result(error={"a": 1}),
    "error a text": result(error="failed"),
    "error a list": result(error=[1]),
    "error true": result(error=True),
    "error null": result(error=None),
    "type a number": error(type=5),
    "type null": error(type=None),
    "message a list": error(message=["m"]),
    "message null": error(message=None),
    "traceback a number": error(traceback=5),
    "traceback an object": error(traceback={}),
    # times
    "year 1, east": result(started_at="0001-01-01T00:00:00+14:00"),
    "year 1": result(finished_at="0001-01-01T00:00:00Z"),
    "year 9999, west": result(finished_at="9999-12-31T23:59:59-14:00"),
    "year 10000": result(finished_at="10000-01-01T00:00:00Z"),
    "naive time": result(finished_at="2026-05-04T00:01:00"),
    "time a number": result(started_at=1_777_777_777),
    "time null": result(started_at=None),
    "time a date": result(started_at="2026-05-04"),
    "time a long text": result(started_at="2026-05-04T00:00:00Z" * 10_000),
    # contradictions, in itself or of the worker's exit code 1
    "success with code 1": result(status="success", error=None),
    "success with an error": result(status="success", exit_code=0),
    "cancelled with code 1": result(status="cancelled", error=None),
    "failed with code 0": result(exit_code=0),
    "success": result(status="success", exit_code=0, output={"forged": True}, error=None),
    "cancelled": result(status="cancelled", exit_code=143, error=None),
    "browser failed": error(type="BrowserFailed", message="m").replace(
        b'"exit_code": 1', b'"exit_code": 70'
    ),
}
"""Contents that a worker with exit code 1 never writes."""

ACCEPTED: dict[str, tuple[bytes, Any]] = {
    "text": (result(output="Zürich \U0001f3d9"), "Zürich \U0001f3d9"),
    "nested 200 deep": (result(output=nested(200)), nested(200)),
    "unpaired surrogates": (
        result(output=["\ud83d", {"\udc00": "a\ud800b"}]),
        ["\ufffd", {"\ufffd": "a\ufffdb"}],
    ),
    "escaped pair": (result(output="\U0001f3d9"), "\U0001f3d9"),
    "backslashes": (result(output="\\ud800"), "\\ud800"),
    "repeated name in the output": (raw(b'{"1": 1, "1": 2}'), {"1": 2}),
    "integer of 4300 digits": (raw(b"9" * 4300), int("9" * 4300)),
    "small number": (raw(b"1e-999"), 0.0),
    "control characters": (result(output="\0\x1b\u2028"), "\0\x1b\u2028"),
    "many commas in a text": (result(output="," * 3_000_000), "," * 3_000_000),
    "a million values": (raw(b"[" + b"0," * 999_000 + b"0]"), [0] * 999_001),
    "largest text": (result(output="x" * ((16 << 20) - 2)), "x" * ((16 << 20) - 2)),
    "longest error": (error(message="\0" * 500_000, traceback="\ud800" * 500_000), None),
    "further fields": (result(output=1, later="field"), 1),
}
"""Contents that a worker can write, and the outputs that the API reports for them."""


def _fifo(file: Path) -> None:
    os.mkfifo(file)


def _socket(file: Path) -> None:
    at = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as bound:  # the folder's own path may be too long
        bound.bind(f"/proc/self/fd/{at}/{file.name}")
    os.close(at)


def _link_to_result(file: Path) -> None:
    other = file.with_name("other.json")
    other.write_bytes(result())
    file.symlink_to(other)


def _folder(file: Path) -> None:
    (file / "inner").mkdir(parents=True)


def _sparse(file: Path) -> None:
    with file.open("wb") as sparse:
        sparse.truncate(3 << 30)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "FIFO": _fifo,
    "socket": _socket,
    "link to a result": _link_to_result,
    "link to a device": lambda file: file.symlink_to("/dev/zero"),
    "link to itself": lambda file: file.symlink_to(file.name),
    "link to nothing": lambda file: file.symlink_to("none"),
    "link to a folder": lambda file: file.symlink_to("/"),
    "folder": _folder,
    "sparse file": _sparse,
}
"""What is no file, or is too large to be written, in the place of `result.json`."""
