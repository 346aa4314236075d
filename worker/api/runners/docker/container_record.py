"""A task's record from its container: what the engine alone can tell about it."""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from worker import outcome
from worker.api.runners import fields
from worker.api.runners.docker.container import (
    ACCOUNT_LABEL,
    CALLBACK_URL_LABEL,
    DIGEST_LABEL,
    ENDPOINT_LABEL,
    Container,
)
from worker.api.runners.protocol import TaskRecord, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

_CANCELLED_CODES: Final = frozenset({outcome.EXIT_SIGTERM, outcome.EXIT_SIGINT})


def record(container: Container, details: Mapping[str, Any]) -> TaskRecord:
    """The task's record, without the result that its worker may have written.

    Args:
        container: the container as the engine listed it.
        details: `GET /containers/{id}/json` of it.
    """
    labels, state = container.labels, details.get("State") or {}
    pairs = (details.get("Config") or {}).get("Env") or ()
    environ = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    task = TaskRecord(
        task_id=container.task_id,
        account=labels[ACCOUNT_LABEL],
        endpoint_name=labels[ENDPOINT_LABEL],
        status=TaskStatus.QUEUED,
        created_at=container.created_at,
        digest=labels[DIGEST_LABEL],
        inputs=fields.inputs_of(environ.get("WORKER_INPUTS")),
        timeout_s=fields.seconds_of(environ.get("WORKER_TIMEOUT_S")),
        callback_url=labels[CALLBACK_URL_LABEL] or None,
        started_at=_time(state.get("StartedAt")),
        handle=container,
    )
    if container.ended:
        return dataclasses.replace(task, **_end(container, state, details.get("Created")))
    if not container.queued:
        return dataclasses.replace(task, status=TaskStatus.RUNNING)
    return task


def _end(container: Container, state: Mapping[str, Any], created: object) -> dict[str, Any]:
    """The fields that describe the end, from exit code and name."""
    finished_at = _time(state.get("FinishedAt"))
    cancelled_at = container.cancelled_at
    if container.state == "created":
        if cancelled_at is not None:
            return {"status": TaskStatus.CANCELLED, "finished_at": cancelled_at}
        message = state.get("Error") or "the engine did not start it"
        error = {"type": "StartFailed", "message": message}
        at = finished_at or _time(created) or container.created_at
        return {"status": TaskStatus.FAILED, "finished_at": at, "error": error}
    at = finished_at or _time(created) or container.created_at
    if container.overdue:
        message = "the worker still ran long after the task's timeout and was ended"
        return {
            "status": TaskStatus.FAILED,
            "finished_at": at,
            "exit_code": outcome.EXIT_TIMEOUT,
            "error": {"type": "WorkerOverdue", "message": message},
        }
    code = fields.exit_code_of(state.get("ExitCode"))
    end: dict[str, Any] = {"finished_at": at, "exit_code": code}
    if code == 0:
        return {**end, "status": TaskStatus.SUCCESS}
    if cancelled_at is not None or code in _CANCELLED_CODES:
        return {**end, "status": TaskStatus.CANCELLED}
    if state.get("OOMKilled"):
        error = {"type": "OOMKilled", "message": "the container ran out of memory"}
    else:
        message = state.get("Error") or f"the worker ended with code {code} and left no result"
        error = {"type": "WorkerLost", "message": message}
    return {**end, "status": TaskStatus.FAILED, "error": error}


def _time(text: object) -> datetime | None:
    """RFC 3339 with nanoseconds, which `datetime` cannot parse; None for the year 1: no time."""
    return (
        fields.time_of(re.sub(r"\.(\d{1,6})\d*", r".\1", text)) if isinstance(text, str) else None
    )
