"""Fixtures: the built images, a gateway in a network of its own, and containers of tasks."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from container_run import HARDENED, ContainerRun, Gateway, docker
from required import require, skip_or_fail
from worker_run import eventually


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that answers."""
    require("docker", install="install Docker")
    if not docker("version", "--format", "{{.Server.Version}}", check=False):
        skip_or_fail("a running Docker engine", "start dockerd")


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    """The worker's image: the variable IMAGE, as for `make image`."""
    return _built(os.environ.get("IMAGE", "worker"))


@pytest.fixture(scope="session")
def gateway_image(engine: None) -> str:
    """The gateway's image."""
    return _built(os.environ.get("IMAGE", "worker") + "-gateway")


def _built(name: str) -> str:
    if not docker("image", "ls", "--quiet", name):
        skip_or_fail(f"the image {name}", "run `make image`")
    return name


@pytest.fixture
def free_port() -> int:
    """A free port of this host."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def gateway(gateway_image: str) -> Iterator[Gateway]:
    """A gateway in a network of its own; a container there is found by its name."""
    name = f"worker-test-{uuid.uuid4().hex[:8]}"
    docker("network", "create", name)
    try:
        docker("run", "--detach", "--name", name, "--network", name, *HARDENED[:4],
               "--publish", "127.0.0.1::8080", gateway_image)  # fmt: skip
        try:
            address = docker("port", name, "8080").splitlines()[0]
            host, port = address.split(":")
            eventually(lambda: _answers(host, int(port)), what="the gateway listens")
            yield Gateway(name=name, network=name, address=address)
        finally:
            docker("rm", "--force", name)
    finally:
        docker("network", "rm", name)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def container(image: str, tmp_path: Path) -> Iterator[Callable[..., ContainerRun]]:
    """Run tasks in containers; one that ended by itself may have left no process."""
    runs: list[ContainerRun] = []

    def start(*arguments: str, **options: Any) -> ContainerRun:
        started = ContainerRun(image, tmp_path / str(len(runs)), *arguments, **options)
        runs.append(started)
        return started

    try:
        yield start
    finally:
        left = [line for each in runs for line in each.remove()]
    assert not left
