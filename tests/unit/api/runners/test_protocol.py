"""The values of the runner protocol."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from worker.api.runners.protocol import TaskRecord, TaskStatus

RECORD = TaskRecord(
    task_id="b",
    account="alice",
    endpoint_name="tour",
    status=TaskStatus.QUEUED,
    created_at=datetime(2026, 1, 2, tzinfo=UTC),
    digest="d",
)


@pytest.mark.parametrize(
    ("status", "ended"),
    [("queued", False), ("running", False), ("success", True), ("failed", True)],
)
def test_ended(status, ended):
    assert TaskStatus(status).ended is ended


def test_handle_is_no_part_of_the_value():
    """Records are compared and shown without it."""
    with_handle = dataclasses.replace(RECORD, handle=object())
    assert with_handle == RECORD
    assert "handle" not in repr(with_handle)


def test_cursors_are_ordered_by_time_and_id():
    later = dataclasses.replace(RECORD, created_at=RECORD.created_at + timedelta(seconds=1))
    other = dataclasses.replace(RECORD, task_id="a")
    assert other.cursor < RECORD.cursor < later.cursor
