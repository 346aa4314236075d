"""A task's record from its Job and pods."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime

import pytest
from job_samples import REQUEST, RUNNING, condition, job, pod, result, terminated

from worker.api.models import Task
from worker.api.runners.kubernetes import job_record
from worker.api.runners.kubernetes.job_record import JobWithPods, callback_pending, record
from worker.api.runners.kubernetes.job_spec import CALLBACK_LABEL
from worker.api.runners.protocol import NULL, TaskStatus

NOW = datetime(2026, 1, 2, 4, tzinfo=UTC)
FINISHED_AT = datetime(2026, 1, 2, 3, 5, 6, tzinfo=UTC)
DEADLINE = condition("Failed", "DeadlineExceeded", "too long")


def test_record_has_the_request():
    """The whole request can be read from the Job; the handle is what was read."""
    made = job()
    task = record(made, [])
    assert task.status is TaskStatus.QUEUED
    for name in ("task_id", "account", "endpoint_name", "inputs", "timeout_s", "callback_url"):
        assert getattr(task, name) == getattr(REQUEST, name), name
    assert (task.digest, task.created_at) == (REQUEST.digest, REQUEST.created_at)
    assert JobWithPods.of(task).job is made


# -- odd objects

ENDED = terminated(1, "OOMKilled", result("failed", 1, error={"type": "E", "message": "m"}))
STATES = [ENDED, RUNNING, {"waiting": {"reason": "R", "message": "m"}}]


def paths(value, path=()):
    """The paths of all parts of a JSON value, itself excluded."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from paths(value[key], (*path, key))


def changed(value, path, new=None):
    """A copy of a JSON value with another part at a path; None: without it."""
    made = copy.deepcopy(value)
    *above, last = path
    parent = made
    for key in above:
        parent = parent[key]
    if new is None:
        del parent[last]
    else:
        parent[last] = new
    return made


def check(made, pods):
    """Whatever the Job and its pods are, the runner's questions are answered."""
    task = record(made, pods)
    job_record.waiting(job_record.newest(pods))
    job_record.is_ready(job_record.newest(pods))
    job_record.termination_message(pods)
    callback_pending(made, NOW)
    if task is not None:
        Task.json_of(task)


@pytest.mark.parametrize("state", STATES)
def test_missing_parts(state):
    """Any part may be missing, of Jobs that other clients changed, and of other versions' pods."""
    made = job(condition("Failed", "R", "m"), callback_leased_until="2026-01-02T03:04:05Z")
    a_pod = pod(state, conditions=[{"type": "Ready", "status": "True"}])
    for path in paths(made):
        if path not in (("metadata",), ("metadata", "name")):
            check(changed(made, path), [a_pod])
    for path in paths(a_pod):
        if path != ("metadata",):
            check(made, [changed(a_pod, path)])


@pytest.mark.parametrize(
    "text", ["", "x", "0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00", "[" * 4000]
)
def test_odd_texts(text):
    """An annotation, a time or a message may be any text."""
    made = job(DEADLINE, waiting="{}", callback_leased_until="x", cancelled_at="x")
    a_pod = pod(ENDED)
    for path in paths(made["metadata"]["annotations"]):
        check(changed(made, ("metadata", "annotations", *path), text), [a_pod])
        check(changed(made, ("metadata", "annotations", *path), text), [])
    for name in ("startedAt", "finishedAt", "message", "reason"):
        place = ("status", "containerStatuses", 0, "state", "terminated", name)
        check(made, [changed(a_pod, place, text)])


@pytest.mark.parametrize("missing", ["env", "containers"])
def test_odd_container(missing):
    made = job()
    spec = made["spec"]["template"]["spec"]
    del (spec["containers"][0] if missing == "env" else spec)[missing]
    task = record(made, [])
    assert (task.inputs, task.timeout_s, task.account) == ({}, None, "acme")


def test_foreign_job():
    """A Job without an account, or without any time, is not a task."""
    made = job()
    del made["metadata"]["labels"]["worker/account"]
    assert record(made, []) is None
    made = job(created_at="x")
    assert record(made, []) is None
    made["metadata"]["creationTimestamp"] = "2026-01-02T03:04:05Z"
    assert record(made, []).created_at == REQUEST.created_at


# -- before the end


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_starting(reason):
    """A pod that is only starting is a queued task without an error."""
    task = record(job(), [pod({"waiting": {"reason": reason}})])
    assert (task.status, task.error) == ("queued", None)


def test_waiting():
    """A pod that cannot start is a queued task with the reason as its error."""
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    task = record(job(), [pod({"waiting": waiting})])
    assert task.status is TaskStatus.QUEUED
    assert task.error == {"type": "ImagePullBackOff", "message": "no such image"}


def test_unschedulable():
    """A pod that fits on no node is a queued task with the scheduler's reason."""
    scheduled = {"type": "PodScheduled", "status": "False"}
    scheduled |= {"reason": "Unschedulable", "message": "0/3 nodes"}
    task = record(job(), [pod(None, phase="Pending", conditions=[scheduled])])
    assert (task.status, task.error) == (
        "queued",
        {"type": "Unschedulable", "message": "0/3 nodes"},
    )


def test_running():
    task = record(job(), [pod(RUNNING)])
    assert task.status is TaskStatus.RUNNING
    assert task.started_at == datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)


def test_between_attempts():
    """A task whose attempt was interrupted is running: its Job has not ended."""
    assert record(job(), [pod(terminated(70))]).status is TaskStatus.RUNNING


def test_latest_attempt():
    """The pod that was created last counts."""
    pods = [pod(RUNNING, created="3"), pod(terminated(70), created="2")]
    for each in (pods, pods[::-1]):
        assert record(job(), each).started_at is not None
        assert job_record.newest(each) is pods[0]


# -- ends


def test_success_before_the_job_is_complete():
    """The pod's end is visible before the Job's."""
    task = record(job(), [pod(terminated(0, "Completed", result("success", 0, output=[1])))])
    assert (task.status, task.output) == ("success", b"[1]")


def test_success():
    done = terminated(0, "Completed", result("success", 0, output={"title": "Hello"}))
    task = record(job(condition("Complete")), [pod(done)])
    assert (task.status, task.exit_code, task.output) == ("success", 0, b'{"title": "Hello"}')
    assert task.finished_at == FINISHED_AT


def test_output_omitted():
    """A worker that could not write its whole output marks it as omitted."""
    done = terminated(0, "Completed", result("success", 0, output_omitted=True))
    task = record(job(condition("Complete")), [pod(done)])
    assert (task.status, task.output, task.output_omitted) == ("success", NULL, True)


def test_success_without_a_pod():
    """A Job's success outlives its pods."""
    task = record(job(condition("Complete")), [])
    assert (task.status, task.exit_code, task.output) == ("success", 0, NULL)
    assert task.finished_at == datetime(2026, 1, 2, 3, 5, 7, tzinfo=UTC)


def test_failed_task():
    """A task that raised has its own error."""
    error = {"type": "LookupError", "message": "nothing there"}
    ended = terminated(1, result=result("failed", 1, error=error))
    task = record(job(condition("Failed", "PodFailurePolicy")), [pod(ended)])
    assert (task.status, task.exit_code, task.error) == ("failed", 1, error)


@pytest.mark.parametrize(
    ("state", "status", "reason", "kind"),
    [
        (terminated(137, "OOMKilled"), {}, "PodFailurePolicy", "OOMKilled"),
        (terminated(137), {"reason": "Evicted"}, "BackoffLimitExceeded", "Evicted"),
        (terminated(64), {}, "PodFailurePolicy", "WorkerLost"),
        (None, {}, "DeadlineExceeded", "DeadlineExceeded"),
        (None, {}, "BackoffLimitExceeded", "BackoffLimitExceeded"),
    ],
)
def test_reasons(state, status, reason, kind):
    """The most specific reason of a failure is the error's type."""
    task = record(job(condition("Failed", reason, "message")), [pod(state, **status)])
    assert (task.status, task.error["type"]) == ("failed", kind)


def test_stored_reason_of_a_deleted_pod():
    """Why a pod never ran is known after the deadline deleted it."""
    waiting = {"type": "ErrImagePull", "message": "no such image"}
    task = record(job(DEADLINE, waiting=json.dumps(waiting)), [])
    assert task.error == waiting


# -- cancellation


def test_cancelled_while_queued():
    """The cancellation's time is the end's."""
    task = record(job(cancelled_at="2026-01-02T03:04:59+00:00"), [])
    assert task.status is TaskStatus.CANCELLED
    assert task.finished_at == datetime(2026, 1, 2, 3, 4, 59, tzinfo=UTC)


def test_cancelled_while_running():
    """The task is running until its container has ended."""
    made = job(cancelled_at="2026-01-02T03:04:59+00:00")
    assert record(made, [pod(RUNNING)]).status is TaskStatus.RUNNING
    made = job(DEADLINE, cancelled_at="2026-01-02T03:04:59+00:00")
    task = record(made, [])
    assert (task.status, task.error) == ("cancelled", None)


@pytest.mark.parametrize("code", [130, 143])
def test_ended_by_a_signal(code):
    task = record(job(condition("Failed", "PodFailurePolicy")), [pod(terminated(code))])
    assert (task.status, task.exit_code, task.error) == ("cancelled", code, None)


# -- readiness and callbacks


@pytest.mark.parametrize(
    ("status", "expected"), [("True", True), ("False", False), ("Unknown", False)]
)
def test_is_ready(status, expected):
    ready = [{"type": "Ready", "status": status}]
    assert job_record.is_ready(pod(RUNNING, conditions=ready)) is expected


def test_is_not_ready():
    """Neither without a pod, nor while one is deleted."""
    assert not job_record.is_ready({})
    leaving = pod(RUNNING, conditions=[{"type": "Ready", "status": "True"}])
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:06Z"
    assert not job_record.is_ready(leaving)


@pytest.mark.parametrize(
    ("label", "lease", "pending"),
    [
        ("pending", None, True),
        ("owed", None, True),  # written by version 0.1
        ("notified", None, False),
        ("told", None, False),  # written by version 0.1
        ("pending", "2026-01-02T03:59:59+00:00", True),
        ("pending", "2026-01-02T04:00:01+00:00", False),
        ("owed", "2026-01-02T04:00:01+00:00", False),
    ],
)
def test_callback_pending(label, lease, pending):
    """A callback is pending unless it was notified or is leased."""
    made = job(**({} if lease is None else {"callback_leased_until": lease}))
    made["metadata"]["labels"][CALLBACK_LABEL] = label
    assert callback_pending(made, NOW) is pending
