"""Names that all processes of the machine share: no task can take those that others need."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import httpx
import network_namespace
import pytest
from websocket_client import upgrade
from worker_run import eventually

PORTS = range(40_000, 40_200)
SOURCE = "127.0.0.2"  # of the test's connections: the hostile task occupies the ports of 127.0.0.1
PATIENCE_S = 20


@pytest.fixture
def network():
    """A namespace with few ports, so that all of them can be taken in a moment."""
    with network_namespace.entered(PORTS):
        yield


@pytest.fixture
def api(network, isolated_api):
    """Start an API by its isolation; its tasks wait for nothing but their cancellation."""

    def start(isolation):
        env = {"WORKER_LOCAL_ISOLATION": isolation, "WORKER_MAX_RUNNING": "2"}
        made = isolated_api(env)
        made.client.close()
        made.client = httpx.Client(
            timeout=PATIENCE_S, transport=httpx.HTTPTransport(local_address=SOURCE)
        )
        return made.start()

    return start


def occupy(api):
    """Start a task of alice that takes all displays and ports, and wait until it has."""
    api.sign_in("alice")
    task = api.start_task("occupy")
    file = api.state / "tasks" / task / "artifacts/occupied"
    eventually(file.exists, timeout_s=60, what="all names")
    return task


def greeting(url):
    """The first message of a stream."""
    address = urlsplit(url)
    with socket.create_connection(
        (address.hostname, address.port), PATIENCE_S, (SOURCE, 0)
    ) as connection:
        stream = upgrade(connection, url, timeout_s=PATIENCE_S)
        found = bytearray(12)
        read = 0
        while read < len(found):
            read += stream.read_some(memoryview(found)[read:], time.monotonic() + PATIENCE_S)
        return bytes(found)


@pytest.mark.parametrize("isolation", ["auto", "landlock"])
def test_a_task_that_takes_all_displays_and_ports(api, isolation):
    """Tasks of another account start, one after the other, and are streamed."""
    made = api(isolation)
    occupy(made)
    made.sign_in("bob")
    for _ in range(2):
        task = made.start_task("idle")
        made.wait_for_status(task, "running")
        url = made.get(f"/tasks/{task}/stream").json()["stream_url"]
        assert greeting(url) == b"RFB 003.008\n"
        made.post(f"/tasks/{task}/cancel")
        made.wait_for_status(task, "cancelled")
