"""`docker run`: one task per container, with the options that the documentation names."""

from __future__ import annotations

import pytest
from container_run import END_FILE, HARDENED, docker
from end_to_end import TARGET, assert_watched_to_the_end

WAYS = {
    "plain": (),
    "hardened": (*HARDENED, "--user=12345:12345"),
    "small-shm": ("--shm-size=64m",),
    "large-shm": ("--shm-size=1g",),
}
SEES = ("--input", f"file={END_FILE}")


@pytest.mark.parametrize("way", WAYS)
def test_end_to_end(container, way):
    """A task is watched to its end; `docker wait` has its exit code."""
    run = container(TARGET, *SEES, options=WAYS[way])
    assert_watched_to_the_end(run)
    assert run.docker_wait() == 0
    assert bool(run.events_named("shm.avoided")) == ("--shm-size=1g" not in WAYS[way])
    assert bool(run.events_named("sandbox.disabled")) == (way != "hardened")


def test_huge_descriptor_limit(image, container):
    """The task runs although x11vnc would close every possible descriptor at its start."""
    huge = "--ulimit=nofile=1048576"
    taken = docker("run", "--rm", huge, "--entrypoint=true", image, check=False, with_stderr=True)
    if "rlimit" in taken:
        pytest.skip("the engine may not set so high a limit")
    run = container(TARGET, *SEES, options=(huge,))
    assert_watched_to_the_end(run)


def test_through_the_gateway(container, gateway):
    """The same, with every viewer at the gateway, which finds the container by the task's id."""
    options = ("--network", gateway.network)
    run = container(TARGET, *SEES, options=options, gateway_url=gateway.url)
    assert_watched_to_the_end(run)
