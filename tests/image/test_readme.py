"""The commands of the READMEs that need Docker work when they are pasted."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from container_run import compose_command, docker
from readmes import ROOT, block
from required import require


def run(script, image):
    """Paste a block into a shell; what it printed."""
    if image != "worker":  # `make image IMAGE=…`
        script = re.sub(r"\bworker (?=run|doctor)", f"{image} ", script)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"IMAGE": image},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_docker(image):
    """The container of README.md is cancelled, and its exit code is printed."""
    try:
        said = run(block("docker"), image)
    finally:
        docker("rm", "--force", "a-task", check=False)
    assert said.splitlines()[-1] == "143"


@pytest.mark.timeout(300)
def test_container(image):
    """Two tasks succeed, the third is stopped, and the doctor reports."""
    try:
        said = run(block("container"), image)
    finally:
        docker("rm", "--force", "a-task", check=False)
        docker("volume", "rm", "worker-artifacts", "more-artifacts", check=False)
    assert said.count('"event": "worker.finished"') == 2
    assert said.count('"status": "success"') >= 2
    assert "\n143\n" in said
    assert "ok    Xvfb" in said


@pytest.mark.timeout(300)
def test_compose(image, gateway_image):
    """The task runs behind the gateway and its stream has a URL."""
    require("openssl", install="apt-get install openssl")
    script = block("compose").replace("docker compose", " ".join(compose_command()))
    try:
        said = run(script, image)
    finally:
        docker("volume", "rm", "docker_artifacts", check=False)
    assert re.search(r"ws://localhost:8080/tasks/[0-9a-f-]{36}/websockify\?token=\S+", said)
