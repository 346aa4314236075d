"""A task's record from its Job and the Job's pods."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from worker import outcome
from worker.api.runners import ends, results
from worker.api.runners.fields import error_of, exit_code_of, inputs_of, seconds_of, time_of
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
    text_of,
    worker_container,
)
from worker.api.runners.protocol import TaskRecord, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from worker.api.runners.results import Found

_CANCELLED_CODES: Final = frozenset({outcome.EXIT_SIGTERM, outcome.EXIT_SIGINT})
_ENDED_BY_ITSELF: Final = ("Error", "Completed")
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


def record(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> TaskRecord | None:
    """A task's record, with the result that its worker may have written.

    None if the kubernetes runner did not create the Job: it has no account or no time.
    """
    annotations = annotations_of(job)
    request = _request(job, annotations)
    if request is None:
        return None
    pod = newest(pods)
    state = _container_state(pod)
    terminated = state.get("terminated") or {}
    started = terminated.get("startedAt") or (state.get("running") or {}).get("startedAt")
    task = dataclasses.replace(
        request, started_at=time_of(started), handle=JobWithPods(job=job, pods=pods)
    )
    return _with_end(task, job, pod, annotations)


def _with_end(
    task: TaskRecord,
    job: Mapping[str, Any],
    pod: Mapping[str, Any],
    annotations: Mapping[str, str],
) -> TaskRecord:
    """The task's status, and its end if it has ended."""
    state = _container_state(pod)
    terminated = state.get("terminated") or {}
    if (condition := _condition(job, "Complete")) is not None:
        return _succeeded(task, terminated, condition)
    if (condition := _condition(job, "Failed")) is not None:
        return _failed(task, pod, terminated, condition, annotations)
    if terminated.get("exitCode") == 0:
        return _succeeded(task, terminated, {})
    if CANCELLED_AT in annotations and "running" not in state:
        return dataclasses.replace(
            task, status=TaskStatus.CANCELLED, finished_at=time_of(annotations[CANCELLED_AT])
        )
    if "running" in state or terminated:
        return dataclasses.replace(task, status=TaskStatus.RUNNING)
    return dataclasses.replace(task, error=waiting(pod))


def _request(job: Mapping[str, Any], annotations: Mapping[str, str]) -> TaskRecord | None:
    """A queued task's record: what was requested."""
    metadata = job["metadata"]
    account = labels_of(job).get(ACCOUNT_LABEL)
    created = (annotations.get(CREATED_AT), metadata.get("creationTimestamp"))
    created_at = next(filter(None, map(time_of, created)), None)
    if account is None or created_at is None:
        return None
    environ = _environ(job)
    return TaskRecord(
        task_id=metadata["name"],
        account=account,
        endpoint_name=annotations.get(ENDPOINT) or "",
        status=TaskStatus.QUEUED,
        created_at=created_at,
        digest=annotations.get(DIGEST) or "",
        inputs=inputs_of(environ.get("WORKER_INPUTS")),
        timeout_s=seconds_of(environ.get("WORKER_TIMEOUT_S")),
        callback_url=annotations.get(CALLBACK_URL) or None,
    )


def labels_of(thing: Mapping[str, Any]) -> Mapping[str, str]:
    """An object's labels."""
    labels: Mapping[str, str] = thing["metadata"].get("labels") or {}
    return labels


def annotations_of(thing: Mapping[str, Any]) -> Mapping[str, str]:
    """An object's annotations."""
    annotations: Mapping[str, str] = thing["metadata"].get("annotations") or {}
    return annotations


def _environ(job: Mapping[str, Any]) -> dict[str | None, str]:
    try:
        variables = worker_container(job).get("env") or ()
    except (KeyError, TypeError, StopIteration):
        return {}  # another client changed the Job
    values = {each.get("name"): each.get("value") for each in variables}
    return {name: text_of(each) for name, each in values.items() if isinstance(each, str)}


def newest(pods: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The pod of the latest attempt; empty if there is none."""
    return max(pods, key=lambda pod: pod["metadata"].get("creationTimestamp") or "", default={})


def waiting(pod: Mapping[str, Any]) -> dict[str, str] | None:
    """Why a pod does not run, as type and message; None while it is only starting."""
    state = _container_state(pod).get("waiting") or {}
    reason = state.get("reason") or ""
    if reason and reason not in ("ContainerCreating", "PodInitializing"):
        return {"type": reason, "message": state.get("message") or reason}
    condition = _condition(pod, "PodScheduled", "False")
    if condition is None:
        return None
    reason = condition.get("reason") or "Unschedulable"
    return {"type": reason, "message": condition.get("message") or reason}


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether the pod's probe of /readyz succeeds, so viewers can connect."""
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return False
    return _condition(pod, "Ready") is not None


def callback_pending(job: Mapping[str, Any], now: datetime) -> bool:
    """Whether a callback is to be delivered and not leased."""
    lease = time_of(annotations_of(job).get(LEASED_UNTIL))
    leased = lease is not None and lease > now
    return labels_of(job).get(CALLBACK_LABEL) in PENDING_VALUES and not leased


def termination_message(pods: Sequence[Mapping[str, Any]]) -> str | None:
    """The result that the latest attempt's worker wrote (JSON)."""
    terminated = _container_state(newest(pods)).get("terminated") or {}
    message: str | None = terminated.get("message")
    return message


def _succeeded(
    task: TaskRecord, terminated: Mapping[str, Any], condition: Mapping[str, Any]
) -> TaskRecord:
    finished = terminated.get("finishedAt") or condition.get("lastTransitionTime")
    ended = dataclasses.replace(
        task,
        status=TaskStatus.SUCCESS,
        exit_code=outcome.EXIT_SUCCESS,
        finished_at=time_of(finished),
    )
    return ends.apply(ended, _result(terminated))


def _failed(
    task: TaskRecord,
    pod: Mapping[str, Any],
    terminated: Mapping[str, Any],
    condition: Mapping[str, Any],
    annotations: Mapping[str, str],
) -> TaskRecord:
    code = exit_code_of(terminated.get("exitCode"))
    if code == outcome.EXIT_SUCCESS:
        return _succeeded(task, terminated, condition)
    finished = terminated.get("finishedAt") or condition.get("lastTransitionTime")
    ended = dataclasses.replace(
        task,
        status=TaskStatus.FAILED,
        exit_code=code,
        finished_at=time_of(finished),
        error=_why(pod, terminated, condition, annotations),
    )
    if CANCELLED_AT in annotations or code in _CANCELLED_CODES:
        ended = dataclasses.replace(ended, status=TaskStatus.CANCELLED, error=None)
    return ends.apply(ended, _result(terminated))


def _result(terminated: Mapping[str, Any]) -> Found:
    """The result in a termination message, which the task can replace."""
    message = terminated.get("message")
    if not message or _is_of_the_cluster(terminated):
        return None
    return results.parse(message.encode(errors="replace"))


def _is_of_the_cluster(terminated: Mapping[str, Any]) -> bool:
    """Whether the message states why the cluster ended the container, or did not start it."""
    by_itself = terminated.get("reason") in (None, *_ENDED_BY_ITSELF)
    return not by_itself and not str(terminated.get("message")).startswith("{")


def _why(
    pod: Mapping[str, Any],
    terminated: Mapping[str, Any],
    condition: Mapping[str, Any],
    annotations: Mapping[str, str],
) -> dict[str, Any]:
    """The most specific of the reasons that the cluster gives."""
    status = pod.get("status") or {}
    if status.get("reason"):  # Evicted, NodeLost, …
        return {"type": status["reason"], "message": status.get("message") or status["reason"]}
    if terminated.get("reason", "Error") not in _ENDED_BY_ITSELF:  # OOMKilled, …
        message = f"the container ended: {terminated['reason']}"
        if terminated.get("message") and _is_of_the_cluster(terminated):
            message = terminated["message"]
        return {"type": terminated["reason"], "message": message}
    reason = condition.get("reason") or "Failed"
    message = condition.get("message") or reason
    if reason == _DEADLINE_PASSED and WAITING in annotations and not terminated:
        # The pods were deleted; `repair` has stored why they waited.
        stored = error_of(inputs_of(annotations[WAITING]))
        if stored is not None:
            return stored
    if terminated and reason != _DEADLINE_PASSED:
        end = f"the worker ended with code {terminated.get('exitCode')} and left no result"
        return {"type": "WorkerLost", "message": f"{end}: {message}"}
    return {"type": reason, "message": message}


def _condition(
    thing: Mapping[str, Any], kind: str, status: str = "True"
) -> Mapping[str, Any] | None:
    """A condition of a Job or a pod that has this status."""
    for each in (thing.get("status") or {}).get("conditions") or ():
        if each.get("type") == kind and each.get("status") == status:
            found: Mapping[str, Any] = each
            return found
    return None


def _container_state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    for each in (pod.get("status") or {}).get("containerStatuses") or ():
        if each.get("name") == CONTAINER:
            state: Mapping[str, Any] = each.get("state") or {}
            return state
    return {}
