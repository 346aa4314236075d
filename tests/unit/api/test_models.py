"""The bodies of requests and responses."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from worker.api.models import INPUTS_MAX_CHARS, InferenceRequest, Task, TaskSummary
from worker.api.runners.protocol import TaskRecord, TaskStatus

RECORD = TaskRecord(
    task_id="t",
    account="alice",
    endpoint_name="tour",
    status=TaskStatus.FAILED,
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
    digest="d",
    inputs={"a": [1]},
    exit_code=1,
    error={"type": "E", "message": "m", "extra": "dropped"},
    handle=object(),
)


def request(**inputs):
    return InferenceRequest(endpoint_name="tour", input_parameters=inputs)


@pytest.mark.parametrize("value", ["", "ü", 1, 1.5, True, None, [], [1, "a", None]])
def test_inputs_keep_their_type(value):
    kept = request(a=value).input_parameters["a"]
    assert (type(kept), kept) == (type(value), value)


@pytest.mark.parametrize("value", [{}, {"a": 1}, [[1]], float("nan"), float("inf"), "\ud800"])
def test_invalid_inputs(value):
    with pytest.raises(ValidationError):
        request(a=value)


def test_inputs_limit():
    """The limit is of the JSON text, in which other characters than ASCII are escaped."""
    room = INPUTS_MAX_CHARS - len('{"a": ""}')
    assert request(a="x" * room)
    with pytest.raises(ValidationError, match="at most 100000 characters of JSON"):
        request(a="x" * (room + 1))
    with pytest.raises(ValidationError):
        request(a="ü" * (room // 6 + 1))


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf"), 24 * 3600 + 1])
def test_invalid_timeout(timeout_s):
    with pytest.raises(ValidationError):
        InferenceRequest(endpoint_name="tour", timeout_s=timeout_s)


def test_task_from_record():
    """Account, digest and handle are not shown."""
    shown = json.loads(Task.json_of(RECORD))
    assert shown["input_parameters"] == {"a": [1]}
    assert shown["error"] == {"type": "E", "message": "m", "traceback": None}
    assert shown.keys().isdisjoint({"account", "digest", "handle", "inputs"})


def test_output_is_sent_as_it_is_stored():
    """It is not parsed: for a large one, that would delay all other requests."""
    text = b'[1.50, {"a": "\\u00e9"}]'
    sent = Task.json_of(dataclasses.replace(RECORD, output=text))
    assert sent.endswith(b',"output":' + text + b"}")
    assert json.loads(sent)["output"] == [1.5, {"a": "é"}]


def test_summary_is_a_part_of_the_task():
    summary = TaskSummary.of(RECORD).model_dump(mode="json")
    assert summary.items() <= json.loads(Task.json_of(RECORD)).items()
