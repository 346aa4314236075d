"""A task's folder: the lock, the events, and a result that the task can forge."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from pathlib import Path

import pytest
from hostile_results import HOSTILE, SPECIAL
from hostile_trees import plant

from worker.api.runners.local import task_end
from worker.api.runners.local.task_folder import TaskFolder
from worker.api.runners.protocol import NULL
from worker.process import session_folder

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
    assert folder.remove() is None
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
    assert (result.status, result.exit_code, result.output) == ("success", 0, b'{"a": 1}')


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("file", ["lock", "events", "stderr"])
def test_special_files(folder, file, name):
    """Where the task replaced a file of the folder, nothing is read, and nothing blocks."""
    SPECIAL[name](getattr(folder, file))
    assert not folder.worker_exists()
    assert folder.has_events() in (True, False)
    assert folder.stderr_tail().strip("\0") == ""
    folder.remove_session()


def write_started(folder, session):
    event = {"time": "2026-05-04T00:00:00.000Z", "event": "worker.started", "folder": str(session)}
    folder.events.write_text(json.dumps(event) + "\n")


def test_remove_session(folder):
    """What an ended worker left is removed; a live one's, and any other path, is not."""
    session = Path(tempfile.mkdtemp(prefix="worker-"))
    lock = session_folder.lock(session)
    plant("links", session)
    write_started(folder, session)
    folder.remove_session()
    assert session.exists()
    os.close(lock)
    folder.remove_session()
    assert not session.exists()

    other = folder.path / "worker-other"
    other.mkdir()
    write_started(folder, other)
    folder.remove_session()
    assert other.exists()


# -- how a task ended


@pytest.mark.parametrize("returncode", [0, None])
def test_end_with_a_result(folder, returncode):
    """A result that does not contradict the worker's exit code counts, with its times."""
    write_result(folder, json.dumps(RESULT))
    end = task_end.of_ended_worker(folder, returncode, was_cancelled=True)
    assert (end.status, end.exit_code, end.output) == ("success", 0, b'{"a": 1}')
    assert (end.started_at, end.finished_at) == (RESULT["started_at"], RESULT["finished_at"])


def test_end_with_a_contradicted_result(folder):
    """A task that forges success and kills its worker has failed."""
    write_result(folder, json.dumps(RESULT))
    end = task_end.of_ended_worker(folder, -9, was_cancelled=False)
    assert (end.status, end.exit_code, end.output) == ("failed", 137, NULL)
    assert (end.output_omitted, end.error["type"]) == (True, "WorkerDied")


def test_end_in_the_future(folder):
    """A result that claims a later time ends now."""
    write_result(folder, json.dumps(RESULT | {"finished_at": "9000-01-01T00:00:00Z"}))
    end = task_end.of_ended_worker(folder, 0, was_cancelled=False)
    assert end.finished_at < "2100"
    assert end.started_at <= end.finished_at


EVENT = {
    "event": "task.finished",
    "time": "2026-05-04T00:00:30.000Z",
    "status": "failed",
    "exit_code": 1,
    "error": "RuntimeError: no: good",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_result_of_a_finished_task(folder, name):
    """Status, exit code and time are those of the event."""
    (folder.artifacts / "result.json").write_bytes(HOSTILE[name])
    end = task_end.of_finished_task(folder, EVENT)
    assert (end.status, end.exit_code, end.finished_at) == ("failed", 1, EVENT["time"])
    assert (end.output, end.output_omitted) == (NULL, True)
    assert "no: good" in end.error["message"]
    assert "result.json" in end.error["message"]


def test_finished_task_without_a_result(folder):
    end = task_end.of_finished_task(folder, EVENT)
    assert end.error == {"type": "RuntimeError", "message": "no: good"}


@pytest.mark.parametrize(
    "change",
    [{"status": "splendid"}, {"status": None}, {"exit_code": True}, {"exit_code": 0}, {}],
)
def test_other_event(folder, change):
    assert task_end.of_finished_task(folder, EVENT | change if change else {}) is None


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
    assert (end.status, end.exit_code) == ("cancelled", 137)


@pytest.mark.parametrize("name", SPECIAL)
def test_removal_of_what_replaced_the_folder(tmp_path, name):
    """A task can replace its own folder; what a link points to is kept."""
    folder = TaskFolder(path=tmp_path / "task")
    SPECIAL[name](folder.path)
    kept = set(tmp_path.iterdir()) - {folder.path}
    assert folder.remove() is None
    assert set(tmp_path.iterdir()) == kept


def test_end_because_of_the_disk():
    """It replaces the error of a task that has failed; another end is kept."""
    failed = task_end.disk_full(task_end.not_started("why"), "too much")
    assert failed.error == {"type": "AccountDiskFull", "message": "the task was ended: too much"}
    cancelled = task_end.cancelled()
    assert task_end.disk_full(cancelled, "too much") == cancelled
