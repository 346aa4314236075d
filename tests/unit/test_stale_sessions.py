"""What an ended worker has left is removed; what it has recorded is checked before it is used."""

from __future__ import annotations

import os

import pytest

from worker import linux, stale_sessions
from worker.process import session_folder, task_cgroup
from worker.vnc import shared_memory

NO_PROCESS = 2**22 + 1  # beyond pid_max's upper limit (proc(5))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "worker-1"
    (made / "tmp" / "profile").mkdir(parents=True)
    os.close(session_folder.lock(made))
    return made


def test_a_folder_is_removed(folder, tmp_path):
    assert list(stale_sessions.remove(tmp_path)) == [{"folder": str(folder)}]
    assert list(tmp_path.iterdir()) == []


def test_a_live_owners_folder_is_kept(folder, tmp_path):
    (folder / session_folder.LOCK).unlink()
    lock = session_folder.lock(folder)
    assert list(stale_sessions.remove(tmp_path)) == []
    os.close(lock)


def test_what_cannot_be_removed_is_reported_and_tried_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(stale_sessions, "REMOVE_LIMIT_S", -1)
    (found,) = stale_sessions.remove(tmp_path)
    assert found == {"folder": str(folder), "left_files": [".: it was not removed in time"]}
    monkeypatch.undo()
    assert list(stale_sessions.remove(tmp_path)) == [{"folder": str(folder)}]


@pytest.mark.parametrize("name", ["display", "cgroup", "supervisord.log"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "bytes", "path", "large"])
def test_hostile_records_are_ignored(folder, tmp_path, name, kind):
    record, kept = folder / name, tmp_path / "kept" / folder.name
    kept.mkdir(parents=True)
    (kept / "cgroup.kill").touch()
    if kind == "fifo":
        os.mkfifo(record)
    elif kind == "folder":
        record.mkdir()
    elif kind == "link":
        record.symlink_to(kept / "cgroup.kill")
    elif kind == "large":
        os.truncate(os.open(record, os.O_CREAT | os.O_WRONLY), 2**40)
    else:
        record.write_bytes(b"\xff\0\n:99/../x" if kind == "bytes" else bytes(kept))
    assert list(stale_sessions.remove(tmp_path)) == [{"folder": str(folder)}]
    assert (kept / "cgroup.kill").read_bytes() == b""


def test_only_unused_segments_of_the_sessions_x11vnc_are_removed(folder, tmp_path, monkeypatch):
    own = {"key": 0, "nattch": 0, "cpid": NO_PROCESS, "cuid": os.geteuid()}
    segments = [
        {"shmid": 1, **own},
        {"shmid": 2, **own, "nattch": 1},
        {"shmid": 3, **own, "key": 7},
        {"shmid": 4, **own, "cuid": os.geteuid() + 1},
        {"shmid": 5, **own, "cpid": NO_PROCESS + 1},
        {"shmid": 6, **own, "cpid": os.getpid()},
    ]
    removed: list[int] = []
    monkeypatch.setattr(linux, "shared_memory_segments", lambda: segments)
    monkeypatch.setattr(linux, "remove_segment", removed.append)
    (folder / "supervisord.log").write_text(
        f"INFO spawned: 'x11vnc' with pid {NO_PROCESS}\n"
        f"INFO spawned: 'xvfb' with pid {NO_PROCESS + 1}\n"
        f"INFO spawned: 'x11vnc_control' with pid {os.getpid()}\n"
    )
    list(stale_sessions.remove(tmp_path))
    assert removed == [1]
    shared_memory.remove_unused(os.getpid(), os.geteuid())  # it lives
    assert removed == [1]


def test_segments_of_an_ending_x11vnc_are_removed(folder, tmp_path, monkeypatch):
    """It is not found by its environment any more, but has not released them yet."""
    ended = iter([False, False])
    monkeypatch.setattr(linux, "command_name", lambda _: "x11vnc")
    monkeypatch.setattr(linux, "has_ended", lambda _: next(ended, True))
    segment = {"shmid": 1, "key": 0, "cpid": NO_PROCESS, "cuid": os.geteuid(), "nattch": 0}
    removed: list[int] = []
    monkeypatch.setattr(linux, "shared_memory_segments", lambda: [segment])
    monkeypatch.setattr(linux, "remove_segment", removed.append)
    (folder / "supervisord.log").write_text(f"INFO spawned: 'x11vnc' with pid {NO_PROCESS}\n")
    list(stale_sessions.remove(tmp_path))
    assert removed == [1]


def test_a_cgroup_is_that_of_the_session_only(tmp_path, monkeypatch):
    monkeypatch.setattr(linux, "cgroup2_mount", lambda: str(tmp_path / "cgroup"))
    own = tmp_path / "cgroup" / "a" / "worker-1"
    own.mkdir(parents=True)
    (own / "cgroup.kill").touch()
    (tmp_path / "link").symlink_to(own.parent)
    assert task_cgroup.existing(str(own), name="worker-1") is not None
    assert task_cgroup.existing(f"{tmp_path}/link/worker-1", name="worker-1").path == own
    for recorded in ("", "\0", "worker-1", str(own.parent), f"{tmp_path}/worker-1"):
        assert task_cgroup.existing(recorded, name="worker-1") is None
    assert task_cgroup.existing(str(own), name="worker-2") is None
