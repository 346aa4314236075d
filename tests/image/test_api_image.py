"""The image `worker-api`: the API in a container, which starts other containers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from container_run import HARDENED, Gateway, docker
from required import skip_or_fail
from worker_run import eventually

SOCKET = Path("/var/run/docker.sock")


@pytest.fixture(scope="session")
def api_image(engine: None) -> str:
    """The API's image."""
    name = os.environ.get("IMAGE", "worker") + "-api"
    if not docker("image", "ls", "--quiet", name):
        skip_or_fail(f"the image {name}", "run `make image`")
    return name


@pytest.fixture
def api(api_image: str, image: str, gateway: Gateway) -> Iterator[str]:
    """A running API, by its container's name, that may use the engine's socket."""
    name = f"worker-test-{uuid.uuid4().hex[:8]}"
    settings = {
        "WORKER_RUNNER": "docker",
        "WORKER_IMAGE": image,
        "WORKER_NETWORK": gateway.network,
        "WORKER_STREAM_BASE_URL": gateway.url,
    }
    options = [f"--env={variable}={value}" for variable, value in settings.items()]
    if SOCKET.is_socket():
        options += ["--volume", f"{SOCKET}:{SOCKET}", "--group-add", str(SOCKET.stat().st_gid)]
    else:
        skip_or_fail(f"the engine's socket at {SOCKET}", "start dockerd with it")
    docker("run", "--detach", "--name", name, *HARDENED[:4], *options, "--volume", "/state",
           "--publish", "127.0.0.1::8000", api_image)  # fmt: skip
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)
        label = f"label=worker.network={gateway.network}"
        left = docker("ps", "--all", "--quiet", "--filter", label).split()
        if left:
            docker("rm", "--force", "--volumes", *left)


def test_a_task_from_a_hardened_api(api):
    """Read-only, without root or capabilities, it starts a task and tells its end."""
    address = docker("port", api, "8000").splitlines()[0]

    def ready() -> bool:
        try:
            return httpx.get(f"http://{address}/readyz", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    eventually(ready, timeout_s=30, what=docker("logs", api, with_stderr=True))
    key = docker("exec", api, "worker", "api-key", "alice").split()[-1]
    with httpx.Client(
        base_url=f"http://{address}/api/v1", headers={"x-api-key": key}, timeout=20
    ) as client:
        begun = client.post("/inference", json={"endpoint_name": "tour"})
        assert begun.status_code == 202, begun.text
        task = f"/tasks/{begun.json()['task_id']}"
        ended = ("success", "failed", "cancelled")
        eventually(lambda: client.get(task).json()["status"] in ended, timeout_s=90)
        assert client.get(task).json()["status"] == "success"
    assert docker("exec", api, "id", "-u") == "10001"


def test_no_browser(api_image):
    """It holds no browser, no display, and no compiler."""
    programs = ("chromium", "Xvfb", "x11vnc", "gcc", "pip")
    script = "; ".join(f"command -v {program}" for program in programs)
    assert not docker("run", "--rm", "--entrypoint=sh", api_image, "-c", f"{script}; true")
