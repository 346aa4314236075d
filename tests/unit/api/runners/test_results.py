"""A worker's result, applied to its task's record."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from worker.api.runners.protocol import TaskRecord, TaskStatus
from worker.api.runners.results import apply_result, parse_json

RECORD = TaskRecord(
    task_id="t",
    account="acme",
    endpoint_name="shop",
    status=TaskStatus.CANCELLED,
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
    digest="d",
    exit_code=143,
)


@pytest.mark.parametrize(
    ("content", "value"),
    [(None, None), ("", None), (b"", None), ("{", None), (b"\xff", None), ('{"a": 1}', {"a": 1})],
)
def test_parse_json(content, value):
    assert parse_json(content) == value


def test_valid_result():
    """The worker's result replaces status, exit code and error."""
    error = {"type": "Exited", "message": "code 143"}
    result = {"status": "failed", "exit_code": 143, "output": None, "error": error}
    applied = apply_result(RECORD, result)
    assert (applied.status, applied.exit_code, applied.error) == ("failed", 143, error)


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        "success",
        {},
        {"status": "queued", "exit_code": 0, "output": 1, "error": None},
        {"status": "splendid", "exit_code": 0, "output": 1, "error": None},
        {"status": "failed", "exit_code": [], "output": 1, "error": None},
        {"status": "failed", "exit_code": 1, "output": 1, "error": {}},
        {"status": "failed", "exit_code": 1, "output": 1, "error": "x"},
        {"status": "failed", "exit_code": 1},
    ],
)
def test_invalid_result(result):
    """A task can write the file itself: an invalid result changes nothing."""
    assert apply_result(RECORD, result) == RECORD


@pytest.mark.parametrize(("value", "omitted"), [(True, True), (False, False), ("yes", False)])
def test_output_omitted(value, omitted):
    """Only `true` marks an output as omitted."""
    result = {"status": "success", "exit_code": 0, "output": None, "error": None}
    applied = apply_result(RECORD, result | {"output_omitted": value})
    assert applied.output_omitted is omitted
