"""A session's folder is abandoned when its worker's lock is free, and not before."""

from __future__ import annotations

import os

import pytest

from worker.process import session_folder


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "worker-1"
    made.mkdir()
    return made


def abandoned(parent, owner=None):
    owners = {os.geteuid() if owner is None else owner}
    return list(session_folder.abandoned(parent, owners))


def test_a_folder_is_abandoned_when_its_worker_has_ended(folder, tmp_path):
    lock = session_folder.lock(folder)
    os.utime(folder, (0, 0))  # its age means nothing
    assert abandoned(tmp_path) == []
    os.close(lock)
    assert abandoned(tmp_path) == [folder]


def test_it_is_locked_while_it_is_examined(folder, tmp_path):
    os.close(session_folder.lock(folder))
    for found in session_folder.abandoned(tmp_path, {os.geteuid()}):
        assert found == folder
        assert abandoned(tmp_path) == []
    assert abandoned(tmp_path) == [folder]


def test_another_users_folder_is_skipped(folder, tmp_path):
    os.close(session_folder.lock(folder))
    assert abandoned(tmp_path, owner=os.geteuid() + 1) == []


@pytest.mark.parametrize("kind", ["none", "folder", "link", "fifo"])
def test_a_folder_without_a_sessions_lock_is_skipped(folder, tmp_path, kind):
    """As of a worker that has just created it, or of another program."""
    lock = folder / session_folder.LOCK
    (tmp_path / "file").touch()
    if kind == "folder":
        lock.mkdir()
    elif kind == "link":
        lock.symlink_to(tmp_path / "file")
    elif kind == "fifo":
        os.mkfifo(lock)
    assert abandoned(tmp_path) == ([folder] if kind == "fifo" else [])


def test_links_and_other_names_are_skipped(folder, tmp_path):
    os.close(session_folder.lock(folder))
    other = folder.rename(tmp_path / "other")
    (tmp_path / "worker-2").symlink_to(other)
    (tmp_path / "worker-3").touch()
    assert abandoned(tmp_path) == []
    assert abandoned(tmp_path / "none") == []
