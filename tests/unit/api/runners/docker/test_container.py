"""What a container's state, labels and name mean."""

from __future__ import annotations

import pytest
from docker_samples import CREATED_AT, REQUEST, SPEC, TASK_ID, container

from worker.api.runners.docker.container import NOTIFIED, Container


@pytest.mark.parametrize(
    ("state", "name", "is_queued", "is_running", "has_ended"),
    [
        ("created", TASK_ID, True, False, False),
        ("running", TASK_ID, False, True, False),
        ("paused", TASK_ID, False, True, False),
        ("restarting", TASK_ID, False, True, False),
        ("exited", TASK_ID, False, False, True),
        ("dead", TASK_ID, False, False, True),
        ("created", f"{TASK_ID}.cancelled-1767323046000", False, False, True),
        ("created", f"{TASK_ID}.unstartable", False, False, True),
        ("created", f"{TASK_ID}.unstartable{NOTIFIED}", False, False, True),
        ("created", f"{TASK_ID}.unstartable.told", False, False, True),
        ("created", f"{TASK_ID}.cancelled-1767323046000.told", False, False, True),
    ],
)
def test_phase(state, name, is_queued, is_running, has_ended):
    """A container is queued, running or ended, by state and name."""
    each = container(state, name)
    assert (each.queued, each.running, each.ended) == (is_queued, is_running, has_ended)


@pytest.mark.parametrize(
    ("suffix", "pending"),
    [
        ("", True),
        (".cancelled-1767323046000", True),
        (".unstartable", True),
        (NOTIFIED, False),
        (f".cancelled-1767323046000{NOTIFIED}", False),
        (".told", False),  # written by version 0.1
        (".unstartable.told", False),
        (".cancelled-1767323046000.told", False),
    ],
)
def test_callback_pending(suffix, pending):
    """A callback is pending until the name ends in `.notified`, or in version 0.1's `.told`."""
    assert container("exited", TASK_ID + suffix).callback_pending is pending


def test_cancelled_at():
    """A cancellation's time is in the name, in milliseconds."""
    name = container().cancelled_name(CREATED_AT)
    moment = CREATED_AT.replace(microsecond=678000)
    assert container("exited", name).cancelled_at == moment
    assert container("exited", name + NOTIFIED).cancelled_at == moment
    assert container("exited").cancelled_at is None


def test_list_and_inspect_agree():
    """The engine's two descriptions of a container give the same value."""
    labels = SPEC.create_body(REQUEST, b"")["Labels"]
    networks = {"Networks": {"workers": {"IPAddress": "172.18.0.5"}}}
    details = {
        "Id": "c1",
        "Name": f"/{TASK_ID}",
        "State": {"Status": "running"},
        "Config": {"Labels": labels},
        "NetworkSettings": networks,
    }
    assert Container.from_inspect(details) == container("running")


def test_foreign_container_has_no_address():
    """A container without labels, as `docker inspect` of any name can return it."""
    details = {
        "Id": "c1",
        "Name": "/other",
        "State": {"Status": "running"},
        "Config": {"Labels": None},
        "NetworkSettings": {"Networks": {}},
    }
    assert Container.from_inspect(details).address == ""
