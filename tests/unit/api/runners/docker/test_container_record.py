"""A task as a container: what is asked of the engine, and what its words mean."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from worker.api.runners.docker.container import TOLD, Container, ContainerSpec, record
from worker.api.runners.protocol import TaskRequest, TaskStatus
from worker.api.runners.results import with_result

TASK_ID = "11111111-2222-4333-8444-555555555555"
CREATED_AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
REQUEST = TaskRequest(
    task_id=TASK_ID,
    account="acme",
    endpoint_name="shop",
    file=Path("/srv/endpoints/shop.py"),
    inputs={"n": 1, "city": "Zürich"},
    timeout_s=60,
    callback_url="https://acme.example/hook",
    digest="d" * 64,
    created_at=CREATED_AT,
)
SPEC = ContainerSpec(
    image="worker",
    network="workers",
    endpoints="/srv/endpoints",
    seccomp='{"defaultAction": "SCMP_ACT_ERRNO"}',
    memory_bytes=1 << 30,
    environ={"WORKER_ALLOWED_ORIGINS": "https://a.example"},
)


def container(state: str = "running", name: str = TASK_ID) -> Container:
    request = SPEC.create_body(REQUEST, b"k" * 32)
    return Container.of(
        {
            "Id": "c1",
            "Names": [f"/{name}"],
            "State": state,
            "Labels": request["Labels"],
            "NetworkSettings": {"Networks": {"workers": {"IPAddress": "172.18.0.5"}}},
        }
    )


def details(**state: Any) -> dict[str, Any]:
    known = {
        "StartedAt": "2026-01-02T03:04:06.123456789Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
        "ExitCode": 0,
        "Error": "",
        "OOMKilled": False,
    }
    return {
        "State": known | state,
        "Config": {"Env": SPEC.create_body(REQUEST, b"k" * 32)["Env"]},
        "Created": "2026-01-02T03:04:05.7Z",
    }


def test_hardened():
    """A container is asked for as the README's hardened run is."""
    request = SPEC.create_body(REQUEST, b"k" * 32)
    host = request["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["Tmpfs"] == {"/tmp": ""}
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges", f"seccomp={SPEC.seccomp}"]
    assert host["ShmSize"] == 1 << 30
    assert host["Memory"] == 1 << 30
    assert host["PidsLimit"] > 0
    assert "Privileged" not in host
    assert "User" not in request  # the image's own, which is not root


def test_command_and_environment():
    """The worker is told its task; its key and its inputs are in no command line."""
    request = SPEC.create_body(REQUEST, b"k" * 32)
    assert request["Cmd"] == ["run", "/endpoints/shop.py"]
    environ = dict(pair.split("=", 1) for pair in request["Env"])
    assert environ["WORKER_TASK_ID"] == TASK_ID
    assert environ["WORKER_TIMEOUT_S"] == "60"
    assert environ["WORKER_STREAM_KEY"] == (b"k" * 32).hex()
    assert environ["WORKER_ALLOWED_ORIGINS"] == "https://a.example"
    assert "WORKER_STREAM_SECRET" not in environ


def test_endpoints_read_only():
    """The endpoints are mounted where the worker cannot change them."""
    mounts = SPEC.create_body(REQUEST, b"")["HostConfig"]["Mounts"]
    assert mounts[1] == {
        "Type": "bind",
        "Source": "/srv/endpoints",
        "Target": "/endpoints",
        "ReadOnly": True,
    }


def test_endpoints_in_a_volume():
    """A name that is no path is a volume's."""
    spec = dataclasses.replace(SPEC, endpoints="endpoints")
    assert spec.create_body(REQUEST, b"")["HostConfig"]["Mounts"][1]["Type"] == "volume"


def test_examples():
    """Without a folder of endpoints the image's own examples run, and nothing is mounted."""
    request = dataclasses.replace(SPEC, endpoints=None).create_body(REQUEST, b"")
    assert request["Cmd"] == ["run", "worker.examples.shop:run"]
    assert [mount["Target"] for mount in request["HostConfig"]["Mounts"]] == ["/artifacts"]


def test_record_holds_the_order():
    """All that was ordered can be read from the container again."""
    known = record(container("created"), details(StartedAt="0001-01-01T00:00:00Z"))
    assert known.status is TaskStatus.QUEUED
    assert (known.task_id, known.account, known.endpoint_name) == (TASK_ID, "acme", "shop")
    assert known.inputs == REQUEST.inputs
    assert known.timeout_s == 60
    assert known.created_at == CREATED_AT
    assert known.digest == REQUEST.digest
    assert known.callback_url == REQUEST.callback_url
    assert known.started_at is None


@pytest.mark.parametrize(
    ("state", "name", "status"),
    [
        ("created", TASK_ID, "queued"),
        ("running", TASK_ID, "running"),
        ("paused", TASK_ID, "running"),
        ("exited", TASK_ID, "success"),
        ("created", f"{TASK_ID}.cancelled-1767323046000", "cancelled"),
        ("created", f"{TASK_ID}.cancelled-1767323046000{TOLD}", "cancelled"),
        ("created", f"{TASK_ID}.unstartable", "failed"),
        ("created", f"{TASK_ID}.unstartable{TOLD}", "failed"),
    ],
)
def test_status(state, name, status):
    """State and name of a container tell its task's status."""
    each = container(state, name)
    known = record(each, details(FinishedAt="2026-01-02T03:05:06.5Z"))
    assert known.status == status
    assert each.ended == known.status.ended


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
    """A worker that left no result is known by its exit code."""
    known = record(
        container("exited"), details(ExitCode=code, FinishedAt="2026-01-02T03:05:06.5Z", **more)
    )
    assert (known.status, known.exit_code) == (status, code)
    assert (known.error or {}).get("type") == error
    assert known.finished_at == datetime(2026, 1, 2, 3, 5, 6, 500000, UTC)


def test_killed_after_it_was_cancelled():
    """A cancelled task is cancelled, also when its container had to be killed."""
    each = container("exited", f"{TASK_ID}.cancelled-1767323046000")
    known = record(each, details(ExitCode=137, FinishedAt="2026-01-02T03:05:06.5Z"))
    assert known.status is TaskStatus.CANCELLED


def test_cancelled_in_the_queue():
    """A task that never ran ended when it was cancelled."""
    each = container("created", container().name_when_cancelled(CREATED_AT))
    known = record(each, details())
    assert known.finished_at == CREATED_AT.replace(microsecond=678000)
    assert known.exit_code is None


def test_unstartable():
    """The engine's own reason is kept."""
    known = record(container("created", f"{TASK_ID}.unstartable"), details(Error="no such mount"))
    assert known.error == {"type": "StartFailed", "message": "no such mount"}


def test_result():
    """The worker's result outranks the engine's view."""
    known = record(container("exited"), details(ExitCode=143, FinishedAt="2026-01-02T03:05:06Z"))
    error = {"type": "Exited", "message": "code 143"}
    result = {"status": "failed", "exit_code": 143, "output": None, "error": error}
    told = with_result(known, result)
    assert (told.status, told.exit_code, told.error) == ("failed", 143, error)


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
def test_no_result(result):
    """The task could write the file itself: what is no result changes nothing."""
    known = record(container("exited"), details(FinishedAt="2026-01-02T03:05:06Z"))
    assert with_result(known, result) == known
