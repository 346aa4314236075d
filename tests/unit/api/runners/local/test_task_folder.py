"""A task's folder: the lock, the events, and a result that the task can forge."""

from __future__ import annotations

import fcntl
import json
import tempfile
from pathlib import Path

import pytest

from worker.api.runners.local import task_end
from worker.api.runners.local.task_folder import TaskFolder

RESULT = {
    "status": "success",
    "exit_code": 0,
    "output": {"a": 1},
    "error": None,
    "started_at": "2026-05-04T00:00:00.000Z",
    "finished_at": "2026-05-04T00:01:00.000Z",
}


@pytest.fixture
def folder(tmp_path) -> TaskFolder:
    made = TaskFolder(path=tmp_path)
    made.artifacts.mkdir()
    return made


def write_result(folder, text):
    (folder.artifacts / "result.json").write_text(text)


def test_empty_folder(folder):
    assert not folder.worker_exists()
    assert not folder.has_events()
    assert folder.result() is None
    assert folder.stderr_tail() == ""
    folder.remove_session()


def test_lock(folder):
    """A worker exists while the lock is held."""
    with folder.lock.open("wb") as lock:
        assert not folder.worker_exists()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert folder.worker_exists()
    assert not folder.worker_exists()


def test_events(folder):
    folder.events.write_text("")
    assert not folder.has_events()
    folder.events.write_text("{}\n")
    assert folder.has_events()


def test_stderr_tail(folder):
    """The last 2000 bytes, whatever their encoding."""
    folder.stderr.write_bytes(b"a" * 5000 + b"\xff the end\n")
    tail = folder.stderr_tail()
    assert tail.endswith("\ufffd the end")
    assert len(tail) < 2000


def test_valid_result(folder):
    write_result(folder, json.dumps(RESULT))
    result = folder.result()
    assert (result.status, result.exit_code, result.output) == ("success", 0, {"a": 1})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        json.dumps(RESULT | {"status": "running"}),
        json.dumps(RESULT | {"exit_code": -1}),
        json.dumps(RESULT | {"exit_code": 256}),
        json.dumps(RESULT | {"error": "text"}),
        json.dumps(RESULT | {"finished_at": "2026-05-04T00:01:00"}),
        json.dumps({name: RESULT[name] for name in RESULT if name != "output"}),
    ],
)
def test_invalid_result(folder, text):
    write_result(folder, text)
    assert folder.result() is None


def test_result_without_json_equivalent(folder):
    """NaN and unpaired surrogates become text that JSON can carry."""
    write_result(folder, json.dumps(RESULT | {"output": [float("nan"), "\ud800"]}))
    assert folder.result().output == ["NaN", "?"]


def write_started(folder, session):
    event = {"time": "2026-05-04T00:00:00.000Z", "event": "worker.started", "folder": str(session)}
    folder.events.write_text(json.dumps(event) + "\n")


def test_remove_session(folder):
    """The session's temporary folder is removed; any other path in an event is not."""
    session = Path(tempfile.mkdtemp(prefix="worker-"))
    write_started(folder, session)
    folder.remove_session()
    assert not session.exists()

    other = folder.path / "worker-other"
    other.mkdir()
    write_started(folder, other)
    folder.remove_session()
    assert other.exists()


# -- how a task ended


def test_end_with_a_result(folder):
    """The worker's result has priority over its exit code and a cancellation."""
    write_result(folder, json.dumps(RESULT))
    end = task_end.of_ended_worker(folder, -9, was_cancelled=True)
    assert (end.status, end.exit_code, end.output) == ("success", 0, {"a": 1})


@pytest.mark.parametrize(
    ("returncode", "exit_code", "text"),
    [
        (-9, 137, "was killed by signal 9"),
        (64, 64, "ended before"),
        (None, None, "ended before"),
    ],
)
def test_end_without_a_result(folder, returncode, exit_code, text):
    folder.stderr.write_text("Traceback")
    end = task_end.of_ended_worker(folder, returncode, was_cancelled=False)
    assert (end.status, end.exit_code, end.error["type"]) == ("failed", exit_code, "WorkerDied")
    assert text in end.error["message"]
    assert end.error["message"].endswith(": Traceback")


def test_cancelled_without_a_result(folder):
    end = task_end.of_ended_worker(folder, -9, was_cancelled=True)
    assert (end.status, end.exit_code) == ("cancelled", 143)
