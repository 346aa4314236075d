"""A task's record from its Job and the Job's pods."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from worker import outcome
from worker.api.runners.kubernetes.job_spec import (
    ACCOUNT_LABEL,
    CALLBACK_LABEL,
    CALLBACK_URL,
    CANCELLED_AT,
    CONTAINER,
    CREATED_AT,
    DIGEST,
    ENDPOINT,
    LEASED_UNTIL,
    PENDING_VALUES,
    WAITING,
    worker_container,
)
from worker.api.runners.protocol import TaskRecord, TaskStatus
from worker.api.runners.results import apply_result, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CANCELLED_CODES: Final = frozenset({outcome.EXIT_SIGTERM, outcome.EXIT_SIGINT})
_DEADLINE_PASSED: Final = "DeadlineExceeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWithPods:
    """A task's Job and pods as they were read; the handle of this runner's records."""

    job: Mapping[str, Any]
    pods: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, task: TaskRecord) -> JobWithPods:
        """What a record of the kubernetes runner was read from."""
        read: JobWithPods = task.handle
        return read


def record(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> TaskRecord:
    """A task's record, with the result that its worker may have written."""
    annotations = job["metadata"].get("annotations", {})
    pod = newest(pods)
    state = _container_state(pod)
    terminated = state.get("terminated") or {}
    started = terminated.get("startedAt") or state.get("running", {}).get("startedAt")
    task = dataclasses.replace(
        _request(job, annotations),
        started_at=_time(started),
        handle=JobWithPods(job=job, pods=pods),
    )
    if (condition := _condition(job, "Complete")) is not None:
        return _succeeded(task, terminated, condition)
    if (condition := _condition(job, "Failed")) is not None:
        return _failed(task, pod, terminated, condition, annotations)
    if terminated.get("exitCode") == 0:
        return _succeeded(task, terminated, {})
    if CANCELLED_AT in annotations and "running" not in state:
        return dataclasses.replace(
            task, status=TaskStatus.CANCELLED, finished_at=_time(annotations[CANCELLED_AT])
        )
    if "running" in state or terminated:
        return dataclasses.replace(task, status=TaskStatus.RUNNING)
    return dataclasses.replace(task, error=waiting(pod))


def _request(job: Mapping[str, Any], annotations: Mapping[str, str]) -> TaskRecord:
    """A queued task's record: what was requested."""
    environ = {each["name"]: each.get("value") for each in worker_container(job)["env"]}
    return TaskRecord(
        task_id=job["metadata"]["name"],
        account=job["metadata"]["labels"][ACCOUNT_LABEL],
        endpoint_name=annotations[ENDPOINT],
        status=TaskStatus.QUEUED,
        created_at=datetime.fromisoformat(annotations[CREATED_AT]),
        digest=annotations[DIGEST],
        inputs=json.loads(environ["WORKER_INPUTS"] or "{}"),
        timeout_s=float(environ["WORKER_TIMEOUT_S"] or 0),
        callback_url=annotations[CALLBACK_URL] or None,
    )


def newest(pods: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The pod of the latest attempt; empty if there is none."""
    return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default={})


def waiting(pod: Mapping[str, Any]) -> dict[str, str] | None:
    """Why a pod does not run, as type and message; None while it is only starting."""
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
    """Whether the pod's probe of /readyz succeeds, so viewers can connect."""
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def callback_pending(job: Mapping[str, Any], now: datetime) -> bool:
    """Whether a callback is to be delivered and not leased."""
    metadata = job["metadata"]
    lease = metadata["annotations"].get(LEASED_UNTIL)
    leased = lease is not None and datetime.fromisoformat(lease) > now
    return metadata["labels"][CALLBACK_LABEL] in PENDING_VALUES and not leased


def termination_message(pods: Sequence[Mapping[str, Any]]) -> str | None:
    """The result that the latest attempt's worker wrote (JSON)."""
    message: str | None = _container_state(newest(pods)).get("terminated", {}).get("message")
    return message


def _succeeded(
    task: TaskRecord, terminated: Mapping[str, Any], condition: Mapping[str, Any]
) -> TaskRecord:
    finished = terminated.get("finishedAt") or condition.get("lastTransitionTime")
    ended = dataclasses.replace(
        task,
        status=TaskStatus.SUCCESS,
        exit_code=outcome.EXIT_SUCCESS,
        finished_at=_time(finished),
    )
    return apply_result(ended, parse_json(terminated.get("message")))


def _failed(
    task: TaskRecord,
    pod: Mapping[str, Any],
    terminated: Mapping[str, Any],
    condition: Mapping[str, Any],
    annotations: Mapping[str, str],
) -> TaskRecord:
    code = terminated.get("exitCode")
    finished = terminated.get("finishedAt") or condition.get("lastTransitionTime")
    ended = dataclasses.replace(
        task,
        status=TaskStatus.FAILED,
        exit_code=code,
        finished_at=_time(finished),
        error=_why(pod, terminated, condition, annotations),
    )
    if CANCELLED_AT in annotations or code in _CANCELLED_CODES:
        ended = dataclasses.replace(ended, status=TaskStatus.CANCELLED, error=None)
    return apply_result(ended, parse_json(terminated.get("message")))


def _why(
    pod: Mapping[str, Any],
    terminated: Mapping[str, Any],
    condition: Mapping[str, Any],
    annotations: Mapping[str, str],
) -> dict[str, Any]:
    """The most specific of the reasons that the cluster gives."""
    status = pod.get("status", {})
    if status.get("reason"):  # Evicted, NodeLost, …
        return {"type": status["reason"], "message": status.get("message") or status["reason"]}
    if terminated.get("reason", "Error") not in ("Error", "Completed"):  # OOMKilled, …
        message = terminated.get("message") or f"the container ended: {terminated['reason']}"
        return {"type": terminated["reason"], "message": message}
    reason = condition.get("reason") or "Failed"
    message = condition.get("message") or reason
    if reason == _DEADLINE_PASSED and WAITING in annotations and not terminated:
        # The pods were deleted; `repair` has stored why they waited.
        stored: dict[str, Any] = parse_json(annotations[WAITING]) or {
            "type": reason,
            "message": message,
        }
        return stored
    if terminated and reason != _DEADLINE_PASSED:
        end = f"the worker ended with code {terminated.get('exitCode')} and left no result"
        return {"type": "WorkerLost", "message": f"{end}: {message}"}
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
