"""The request that creates a container."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from docker_samples import REQUEST, SPEC, TASK_ID

from worker.api.runners.docker.container_spec import seccomp_profile
from worker.errors import SettingError


def test_hardening():
    """A container gets the options of the hardened `docker run`."""
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
    """The task is passed by the environment; no key and no input is in the command line."""
    request = SPEC.create_body(REQUEST, b"k" * 32)
    assert request["Cmd"] == ["run", "/endpoints/shop.py"]
    environ = dict(pair.split("=", 1) for pair in request["Env"])
    assert environ["WORKER_TASK_ID"] == TASK_ID
    assert environ["WORKER_TIMEOUT_S"] == "60"
    assert environ["WORKER_STREAM_KEY"] == (b"k" * 32).hex()
    assert environ["WORKER_ALLOWED_ORIGINS"] == "https://a.example"
    assert "WORKER_STREAM_SECRET" not in environ


def test_endpoints_read_only():
    """A folder of endpoints is mounted read-only."""
    mounts = SPEC.create_body(REQUEST, b"")["HostConfig"]["Mounts"]
    assert mounts[1] == {
        "Type": "bind",
        "Source": "/srv/endpoints",
        "Target": "/endpoints",
        "ReadOnly": True,
    }


def test_endpoints_in_a_volume():
    """A name that is not a path is a volume's."""
    spec = dataclasses.replace(SPEC, endpoints="endpoints")
    assert spec.create_body(REQUEST, b"")["HostConfig"]["Mounts"][1]["Type"] == "volume"


def test_examples():
    """Without endpoints the image's examples are used and only the artifacts are mounted."""
    request = dataclasses.replace(SPEC, endpoints=None).create_body(REQUEST, b"")
    assert request["Cmd"] == ["run", "worker.examples.shop:run"]
    assert [mount["Target"] for mount in request["HostConfig"]["Mounts"]] == ["/artifacts"]


def test_default_seccomp_profile():
    assert json.loads(seccomp_profile(None))["defaultAction"]


@pytest.mark.parametrize("content", [None, "{"])
def test_bad_seccomp_profile(tmp_path: Path, content):
    """A profile that is missing or not JSON is named with its variable."""
    file = tmp_path / "seccomp.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingError, match="WORKER_SECCOMP_FILE"):
        seccomp_profile(file)
