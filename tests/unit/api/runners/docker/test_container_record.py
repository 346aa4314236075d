"""A task's record from its container and the engine's answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from docker_samples import CREATED_AT, REQUEST, TASK_ID, container, details

from worker.api.runners.docker.container import NOTIFIED, Container
from worker.api.runners.docker.container_record import record
from worker.api.runners.protocol import TaskStatus


def test_record_has_the_request():
    """The whole request can be read from the container."""
    task = record(container("created"), details(StartedAt="0001-01-01T00:00:00Z"))
    assert task.status is TaskStatus.QUEUED
    assert (task.task_id, task.account, task.endpoint_name) == (TASK_ID, "acme", "shop")
    assert task.inputs == REQUEST.inputs
    assert task.timeout_s == 60
    assert task.created_at == CREATED_AT
    assert task.digest == REQUEST.digest
    assert task.callback_url == REQUEST.callback_url
    assert task.started_at is None


@pytest.mark.parametrize(
    ("state", "name", "status"),
    [
        ("created", TASK_ID, "queued"),
        ("running", TASK_ID, "running"),
        ("paused", TASK_ID, "running"),
        ("exited", TASK_ID, "success"),
        ("created", f"{TASK_ID}.cancelled-1767323046000", "cancelled"),
        ("created", f"{TASK_ID}.cancelled-1767323046000{NOTIFIED}", "cancelled"),
        ("created", f"{TASK_ID}.unstartable", "failed"),
        ("created", f"{TASK_ID}.unstartable{NOTIFIED}", "failed"),
    ],
)
def test_status(state, name, status):
    """The status follows from the container's state and name."""
    each = container(state, name)
    task = record(each, details(FinishedAt="2026-01-02T03:05:06.5Z"))
    assert task.status == status
    assert each.ended == task.status.ended


@pytest.mark.parametrize(
    ("code", "more", "status", "error"),
    [
        (0, {}, "success", None),
        (143, {}, "cancelled", None),
        (130, {}, "cancelled", None),
        (137, {"OOMKilled": True}, "failed", "OOMKilled"),
        (137, {}, "failed", "WorkerLost"),
        (64, {}, "failed", "WorkerLost"),
    ],
)
def test_exit_code(code, more, status, error):
    """Without a result, status and error follow from the exit code."""
    task = record(
        container("exited"), details(ExitCode=code, FinishedAt="2026-01-02T03:05:06.5Z", **more)
    )
    assert (task.status, task.exit_code) == (status, code)
    assert (task.error or {}).get("type") == error
    assert task.finished_at == datetime(2026, 1, 2, 3, 5, 6, 500000, UTC)


def test_killed_after_it_was_cancelled():
    """A cancelled task whose container was killed is cancelled."""
    each = container("exited", f"{TASK_ID}.cancelled-1767323046000")
    task = record(each, details(ExitCode=137, FinishedAt="2026-01-02T03:05:06.5Z"))
    assert task.status is TaskStatus.CANCELLED


def test_cancelled_in_the_queue():
    """A task that never ran ends with its cancellation."""
    each = container("created", container().cancelled_name(CREATED_AT))
    task = record(each, details())
    assert task.finished_at == CREATED_AT.replace(microsecond=678000)
    assert task.exit_code is None


def test_unstartable():
    """The error has the engine's reason."""
    task = record(container("created", f"{TASK_ID}.unstartable"), details(Error="no such mount"))
    assert task.error == {"type": "StartFailed", "message": "no such mount"}


def test_handle_is_the_container():
    each = container()
    assert Container.of(record(each, details())) is each
