"""Checks of the machine."""

from __future__ import annotations

import socket

import pytest

from worker.doctor import machine
from worker.doctor.finding import Level


def levels(findings):
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("file", "text", "limit"),
    [
        ("memory.max", "536870912\n", 536870912),
        ("memory/memory.limit_in_bytes", "1073741824\n", 1073741824),
        ("memory.max", "max\n", None),
        ("cgroup.procs", "1\n", None),
    ],
    ids=["version 2", "version 1", "no limit", "no memory controller"],
)
def test_the_memory_limit_of_both_cgroup_versions_is_read(tmp_path, file, text, limit):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert machine.memory_limit_bytes(tmp_path) == limit


def test_a_small_memory_limit_is_a_warning(tmp_path):
    (tmp_path / "memory.max").write_text(str(256 << 20))
    (found,) = machine.memory(tmp_path)
    assert found.level == Level.WARNING
    assert found.what == "256 MB of memory"


def test_a_port_in_use_is_a_failure():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        (found,) = machine.port("127.0.0.1", number)
    assert found.level == Level.FAILURE
    assert str(number) in found.what
    assert "set WORKER_PORT" in found.remedy


def test_port_0_is_always_free():
    assert levels(machine.port("127.0.0.1", 0)) == [Level.OK]


def test_an_unknown_host_is_a_failure():
    assert levels(machine.port("host.invalid", 0)) == [Level.FAILURE]


def test_an_artifacts_folder_that_can_be_created_is_ok(tmp_path):
    *_, found = machine.folders(tmp_path / "a" / "b")
    assert found.level == Level.OK
