"""What a Job and its pods say of their task."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from worker import outcome
from worker.api.runners.kubernetes.job import (
    ACCOUNT_LABEL,
    CALLBACK_LABEL,
    CALLBACK_URL,
    CANCELLED_AT,
    CONTAINER,
    CREATED_AT,
    DIGEST,
    ENDPOINT,
    LEASED_UNTIL,
    OWED,
    WAITING,
    worker_container,
)
from worker.api.runners.protocol import TaskRecord, TaskStatus
from worker.api.runners.results import parsed, with_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CANCELLED_CODES: Final = frozenset({outcome.EXIT_SIGTERM, outcome.EXIT_SIGINT})
_DEADLINE_PASSED: Final = "DeadlineExceeded"


def record(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> TaskRecord:
    """What a Job and its pods say of a task."""
    labels, notes = job["metadata"]["labels"], job["metadata"].get("annotations", {})
    environ = {each["name"]: each.get("value") for each in worker_container(job)["env"]}
    known = TaskRecord(
        task_id=job["metadata"]["name"],
        account=labels[ACCOUNT_LABEL],
        endpoint_name=notes[ENDPOINT],
        status=TaskStatus.QUEUED,
        created_at=datetime.fromisoformat(notes[CREATED_AT]),
        digest=notes[DIGEST],
        inputs=json.loads(environ["WORKER_INPUTS"] or "{}"),
        timeout_s=float(environ["WORKER_TIMEOUT_S"] or 0),
        callback_url=notes[CALLBACK_URL] or None,
    )
    pod = newest(pods)
    state = _container_state(pod)
    terminated = state.get("terminated") or {}
    started = terminated.get("startedAt") or state.get("running", {}).get("startedAt")
    known = dataclasses.replace(known, started_at=_time(started))
    if (condition := _condition(job, "Complete")) is not None:
        return _succeeded(known, terminated, condition)
    if (condition := _condition(job, "Failed")) is not None:
        return _failed(known, pod, terminated, condition, notes)
    if terminated.get("exitCode") == 0:
        return _succeeded(known, terminated, {})
    if CANCELLED_AT in notes and "running" not in state:
        return dataclasses.replace(
            known, status=TaskStatus.CANCELLED, finished_at=_time(notes[CANCELLED_AT])
        )
    if "running" in state or terminated:
        return dataclasses.replace(known, status=TaskStatus.RUNNING)
    return dataclasses.replace(known, error=waiting(pod))


def newest(pods: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The last try's pod; empty when there is none."""
    return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default={})


def waiting(pod: Mapping[str, Any]) -> dict[str, str] | None:
    """Why a pod does not run yet, where that is more than "not yet"."""
    state = _container_state(pod).get("waiting", {})
    reason = state.get("reason", "")
    if reason and reason not in ("ContainerCreating", "PodInitializing"):
        return {"type": reason, "message": state.get("message") or reason}
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            reason = condition.get("reason") or "Unschedulable"
            return {"type": reason, "message": condition.get("message") or reason}
    return None


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether its probe of /readyz succeeds: viewers can connect."""
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def callback_owed(job: Mapping[str, Any], now: datetime) -> bool:
    """Whether a callback is to be made that nobody else is about to make."""
    metadata = job["metadata"]
    lease = metadata["annotations"].get(LEASED_UNTIL)
    leased = lease is not None and datetime.fromisoformat(lease) > now
    return metadata["labels"][CALLBACK_LABEL] == OWED and not leased


def termination_message(pods: Sequence[Mapping[str, Any]]) -> str | None:
    """What the worker of the last try wrote about its end."""
    message: str | None = _container_state(newest(pods)).get("terminated", {}).get("message")
    return message


def _succeeded(
    known: TaskRecord, terminated: Mapping[str, Any], condition: Mapping[str, Any]
) -> TaskRecord:
    finished = terminated.get("finishedAt") or condition.get("lastTransitionTime")
    ended = dataclasses.replace(
        known,
        status=TaskStatus.SUCCESS,
        exit_code=outcome.EXIT_SUCCESS,
        finished_at=_time(finished),
    )
    return with_result(ended, parsed(terminated.get("message")))


def _failed(
    known: TaskRecord,
    pod: Mapping[str, Any],
    terminated: Mapping[str, Any],
    condition: Mapping[str, Any],
    notes: Mapping[str, str],
) -> TaskRecord:
    code = terminated.get("exitCode")
    finished = terminated.get("finishedAt") or condition.get("lastTransitionTime")
    ended = dataclasses.replace(
        known,
        status=TaskStatus.FAILED,
        exit_code=code,
        finished_at=_time(finished),
        error=_why(pod, terminated, condition, notes),
    )
    if CANCELLED_AT in notes or code in _CANCELLED_CODES:
        ended = dataclasses.replace(ended, status=TaskStatus.CANCELLED, error=None)
    return with_result(ended, parsed(terminated.get("message")))


def _why(
    pod: Mapping[str, Any],
    terminated: Mapping[str, Any],
    condition: Mapping[str, Any],
    notes: Mapping[str, str],
) -> dict[str, Any]:
    """The most telling of the reasons that the cluster gives."""
    status = pod.get("status", {})
    if status.get("reason"):  # Evicted, NodeLost, …
        return {"type": status["reason"], "message": status.get("message") or status["reason"]}
    if terminated.get("reason", "Error") not in ("Error", "Completed"):  # OOMKilled, …
        message = terminated.get("message") or f"the container ended: {terminated['reason']}"
        return {"type": terminated["reason"], "message": message}
    reason = condition.get("reason") or "Failed"
    message = condition.get("message") or reason
    if reason == _DEADLINE_PASSED and WAITING in notes and not terminated:
        # The pods are gone; this is what was last seen of them.
        kept: dict[str, Any] = parsed(notes[WAITING]) or {"type": reason, "message": message}
        return kept
    if terminated and reason != _DEADLINE_PASSED:
        said = f"the worker ended with code {terminated.get('exitCode')} and left no result"
        return {"type": "WorkerLost", "message": f"{said}: {message}"}
    return {"type": reason, "message": message}


def _condition(job: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    for each in job.get("status", {}).get("conditions") or ():
        if each["type"] == kind and each["status"] == "True":
            found: Mapping[str, Any] = each
            return found
    return None


def _container_state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    for each in pod.get("status", {}).get("containerStatuses") or ():
        if each["name"] == CONTAINER:
            state: Mapping[str, Any] = each.get("state") or {}
            return state
    return {}


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
