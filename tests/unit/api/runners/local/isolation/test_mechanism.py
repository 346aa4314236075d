"""Which mechanisms isolate tasks, and what they add to a worker."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from worker import linux
from worker.api.runners.local.isolation import mechanism
from worker.api.runners.local.isolation.mechanism import Isolation
from worker.api.runners.local.isolation.uids import Uids
from worker.api.runners.local.task_folder import TaskFolder

FREE = range(4_000_000_000, 4_000_000_003)
ENVIRON = {"HOME": "/home/api", "PATH": "/bin", "XDG_RUNTIME_DIR": "/run/user/1000"}


@pytest.fixture
def folder(tmp_path):
    return TaskFolder(path=tmp_path / "task")


def detect(folder, chosen="auto"):
    return mechanism.detect(
        chosen,
        FREE,
        folder=folder,
        environ=ENVIRON,
        readable=(),
        hidden=(Path("/state"),),
        endpoints=folder.path,
    )


@pytest.mark.parametrize(
    ("isolation", "name", "event"),
    [
        (Isolation(assigns_uids=True, abi=7), "uids+landlock", "isolation.enabled"),
        (Isolation(assigns_uids=True), "uids", "isolation.enabled"),
        (Isolation(abi=1, why="…"), "landlock", "isolation.enabled"),
        (Isolation(why="…"), "none", "isolation.missing"),
    ],
)
def test_notice(isolation, name, event):
    assert isolation.mechanism == name
    emitted, fields = isolation.notice
    assert emitted == event
    assert bool(fields.get("why")) == bool(isolation.why)
    assert fields.get("mechanism", "none") == name


@pytest.mark.parametrize(("abi", "expected"), [(7, "landlock"), (0, "none")])
def test_without_root(folder, monkeypatch, abi, expected):
    """Landlock, if the kernel offers it; otherwise the reasons are given."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(linux, "landlock_abi", lambda: abi)
    found = detect(folder)
    assert found.mechanism == expected
    assert bool(found.why) == (expected == "none")


def test_off(folder):
    found = detect(folder, "off")
    assert (found.mechanism, found.why) == ("none", "WORKER_LOCAL_ISOLATION is off")


def test_confined_worker(folder):
    """It hides the API's state from its task, which keeps the API's home out of its environment."""
    isolation = Isolation(abi=7, readable=(Path("/data"), Path("/more")), hidden=(Path("/state"),))
    environ = isolation.environment(ENVIRON, folder, None)
    assert {name: value for name, value in environ.items() if name.startswith("WORKER_")} == {
        "WORKER_CONFINE": "true",
        "WORKER_CONFINE_READ": "/data:/more",
        "WORKER_CONFINE_WRITE": str(folder.home),
        "WORKER_CONFINE_HIDE": "/state",
    }
    argv = ["python", "worker"]
    assert isolation.command(argv, folder, None, Path("/endpoints/a.py")) == argv


def test_worker_with_a_uid(folder, tmp_path):
    """It reaches its own folders and its endpoint, and has nothing of the API's user."""
    isolation = Isolation(uids=Uids(FREE, tmp_path), assigns_uids=True, readable=(Path("/data"),))
    environ = isolation.environment(ENVIRON, folder, FREE[0])
    assert environ["HOME"] == str(folder.home)
    assert environ["TMPDIR"] == "/tmp"
    assert environ["PLAYWRIGHT_BROWSERS_PATH"] == "/home/api/.cache/ms-playwright"
    assert "XDG_RUNTIME_DIR" not in environ
    endpoint = Path("/endpoints/a.py")
    *_, view, python, worker = isolation.command(["python", "worker"], folder, FREE[0], endpoint)
    assert (python, worker) == ("python", "worker")
    fields = json.loads(view)
    assert (fields["uid"], fields["tmp"]) == (FREE[0], str(folder.tmp))
    for needed in (folder.home, folder.artifacts, endpoint, endpoint.parent, Path("/data")):
        assert str(needed) in fields["needed"]


def test_prepared_folders(folder):
    """The task's own are inside of the API's, which other users cannot enter."""
    Isolation().prepare(folder, None)
    assert {path.name for path in folder.path.iterdir()} == {"artifacts", "home", "tmp"}
    for path in (folder.path, *folder.writable):
        assert path.stat().st_mode & 0o777 == 0o700
