"""The doctor tells what is well, what could be better, and what keeps a task from running."""

from __future__ import annotations

import socket

import pytest

from worker.doctor import machine, report, software
from worker.doctor.finding import Level, failure, ok, warning


def levels(findings):
    return [finding.level for finding in findings]


def test_lines():
    """A line begins with its level and ends with what to do."""
    assert str(ok("a")) == "ok    a"
    assert str(warning("a", "do b")) == "warn  a: do b"
    assert str(failure("a", "do b")) == "FAIL  a: do b"


def test_can_run():
    """Only a failure keeps a task from running."""
    assert report.can_run([ok("a"), warning("b", "c")])
    assert not report.can_run([ok("a"), failure("b", "c")])


@pytest.mark.parametrize(
    ("file", "text", "limit"),
    [
        ("memory.max", "536870912\n", 536870912),
        ("memory/memory.limit_in_bytes", "1073741824\n", 1073741824),
        ("memory.max", "max\n", None),
        ("cgroup.procs", "1\n", None),
    ],
    ids=["version 2", "version 1", "no limit", "none"],
)
def test_memory_limit(tmp_path, file, text, limit):
    """The limit is found in either version of cgroups, where there is one."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert machine.memory_limit_bytes(tmp_path) == limit


def test_little_memory(tmp_path):
    """A small limit is a warning that names it."""
    (tmp_path / "memory.max").write_text(str(256 << 20))
    (found,) = machine.memory(tmp_path)
    assert found.level == Level.WARNING
    assert found.what == "256 MB of memory"


def test_port():
    """A port that somebody listens on is a failure; 0 never is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        assert levels(machine.port("127.0.0.1", taken)) == [Level.FAILURE]
    assert levels(machine.port("127.0.0.1", 0)) == [Level.OK]


def test_host_that_is_none():
    """A host that cannot be listened on is a line, not a traceback."""
    assert levels(machine.port("host.invalid", 0)) == [Level.FAILURE]


def test_artifacts_below_a_folder_that_is_not_there(tmp_path):
    """Artifacts may go to a folder that can be made."""
    *_, found = machine.folders(tmp_path / "a" / "b")
    assert found.level == Level.OK


def test_novnc(tmp_path):
    """Without noVNC a task runs, but there is no debug page."""
    assert levels(software.novnc(tmp_path, wanted=False)) == [Level.WARNING]
    assert levels(software.novnc(tmp_path, wanted=True)) == [Level.FAILURE]


def test_novnc_version(tmp_path):
    """Its version is the one that its folder says."""
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "rfb.js").touch()
    (tmp_path / "package.json").write_text('{"version": "1.5.0"}')
    assert str(*software.novnc(tmp_path, wanted=True)) == f"ok    noVNC 1.5.0 ({tmp_path})"


def test_browser_that_is_none(tmp_path):
    """A configured browser that is no program is a failure that names the setting."""
    (found,) = software.chromium(tmp_path / "nothing")
    assert found.level == Level.FAILURE
    assert "WORKER_CHROMIUM" in found.mend


def test_packages():
    """The packages of this project are all there."""
    assert set(levels(software.packages())) == {Level.OK}
