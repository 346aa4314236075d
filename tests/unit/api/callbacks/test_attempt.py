"""The body of a callback is bounded."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

import pytest

from worker.api.callbacks.attempt import BODY_MAX_BYTES, body_of
from worker.api.runners.protocol import TaskRecord, TaskStatus

TASK = TaskRecord(
    task_id="11111111-2222-4333-8444-555555555555",
    account="alice",
    endpoint_name="tour",
    status=TaskStatus.FAILED,
    created_at=datetime(2026, 5, 4, tzinfo=UTC),
    digest="",
)
LONG = "é" * BODY_MAX_BYTES
LONG_OUTPUT = json.dumps(LONG).encode()
ERROR = {"type": "RuntimeError", "message": "failed"}


@pytest.mark.parametrize(
    ("fields", "omitted"),
    [
        ({"output": b'"short"', "error": ERROR}, False),
        ({"output": LONG_OUTPUT}, True),
        ({"error": ERROR | {"message": LONG}}, True),
        ({"output": LONG_OUTPUT, "error": ERROR | {"traceback": LONG}}, True),
        (
            {
                "output": json.dumps(LONG).encode(),
                "error": {"type": LONG, "message": LONG, "traceback": LONG},
            },
            True,
        ),
    ],
    ids=["short", "output", "message", "traceback", "all"],
)
def test_body(fields, omitted):
    """Status and the beginning of the error remain."""
    body = body_of(dataclasses.replace(TASK, **fields))
    sent = json.loads(body)
    assert len(body) <= BODY_MAX_BYTES
    assert (sent["status"], sent["output_omitted"]) == ("failed", omitted)
    assert sent["output"] == (None if omitted else "short")
    if "error" in fields:
        assert fields["error"]["message"].startswith(sent["error"]["message"])
