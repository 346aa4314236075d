"""The cgroups of running tasks, in a folder that imitates the file system of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker import linux
from worker.api.runners.local.isolation import cpu_shares
from worker.api.runners.local.isolation.cpu_shares import CpuShares


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Version 2, or 1, mounted at a folder, with a service's cgroup in it."""

    def mount(version, own):
        unified = version == 2
        controllers = "" if unified else "cpu,cpuacct"
        monkeypatch.setattr(linux, "own_cgroups", lambda: [("memory", "/"), (controllers, own)])
        monkeypatch.setattr(linux, "cgroup2_mount", lambda: str(tmp_path) if unified else None)
        monkeypatch.setattr(linux, "cgroup1_mount", lambda _: None if unified else str(tmp_path))
        for group in ("", "system.slice", "system.slice/worker.service"):
            folder = tmp_path / group
            folder.mkdir(exist_ok=True)
            if unified:
                (folder / "cgroup.controllers").write_text("cpu memory\n")
                (folder / "cgroup.subtree_control").write_text("cpu\n")
        return cpu_shares.detect()

    return mount


@pytest.mark.parametrize(
    ("own", "beside"), [("/", "."), ("/system.slice/worker.service", "system.slice")]
)
def test_group_beside_the_apis(mounted, tmp_path, own, beside):
    """In version 1; a new folder of version 2 contains files only in the real file system."""
    shares = mounted(1, own)
    group = tmp_path / beside / "worker-tasks/70001"
    assert shares.create(70001) == str(group)
    assert group.is_dir()
    assert (group.parent / "cpu.shares").read_text() == "335"


def test_version_2(mounted, tmp_path):
    """The parent has the lower weight, and lets the kernel share out CPU time in it."""
    shares = mounted(2, "/system.slice/worker.service")
    parent = tmp_path / "system.slice/worker-tasks"
    parent.mkdir()
    (parent / "cgroup.subtree_control").write_text("")
    assert shares.create(70001) == str(parent / "70001")
    assert (parent / "cpu.weight").read_text() == "33"
    assert (parent / "cgroup.subtree_control").read_text() == "+cpu"


def test_controller_elsewhere(mounted, tmp_path):
    """A machine with both versions, whose version 2 does not share out CPU time."""
    (tmp_path / "cgroup.controllers").touch()
    shares = mounted(2, "/")
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    assert cpu_shares.detect() == CpuShares()
    assert shares.parent is not None


def test_no_cgroups():
    """Nothing is created, joined or removed."""
    shares = CpuShares()
    assert shares.create(70001) == ""
    shares.remove(70001)
    cpu_shares.join("")


def test_not_writable(tmp_path):
    """A worker starts without a group."""
    shares = CpuShares(beside=linux.CpuCgroup(Path("/proc/missing"), is_root=True, unified=False))
    assert shares.create(70001) == ""
    shares.remove(70001)
    cpu_shares.join(str(tmp_path / "missing"))


def test_removed_with_the_last(tmp_path):
    """As the kernel does: a group is removed only when it is empty."""
    parent = tmp_path / "worker-tasks"
    shares = CpuShares(beside=linux.CpuCgroup(tmp_path, is_root=True, unified=False))
    for uid in (1, 2):
        (parent / str(uid)).mkdir(parents=True)
    shares.remove(1)
    assert [each.name for each in parent.iterdir()] == ["2"]
    shares.remove(2)
    assert not parent.exists()
