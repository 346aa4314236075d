"""The uids of running tasks are unique, also among several APIs."""

from __future__ import annotations

import os
import pwd

import pytest

from worker import linux
from worker.api.runners.local.isolation.uids import NoFreeUid, Uids
from worker.errors import SettingError

FREE = range(4_000_000_000, 4_000_000_003)


@pytest.fixture
def uids(tmp_path):
    made = Uids(FREE, tmp_path)
    yield made
    for number in FREE:
        made.release(number)


def test_each_task_has_another(uids):
    """Those of tasks that are not cleaned up are not used; the last one that is free is refused."""
    assert [uids.take([FREE[1]]).number for _ in range(2)] == [FREE[0], FREE[2]]
    with pytest.raises(NoFreeUid, match="WORKER_LOCAL_UIDS"):
        uids.take([FREE[1]])
    uids.release(FREE[2])
    assert uids.take([FREE[1]]).number == FREE[2]


def test_two_apis(uids, tmp_path):
    """One does not use a uid of the other, and cannot lock it to clean it up."""
    other = Uids(FREE, tmp_path)
    taken = uids.take(())
    assert other.hold(taken.number) is None
    second = other.take(())
    assert second.number == FREE[1]
    other.release(second.number)


def test_lock_is_kept_by_a_worker(uids, tmp_path):
    """It holds the lock after its API has ended."""
    taken = uids.take(())
    inherited = os.dup(taken.lock)
    uids.release(taken.number)
    other = Uids(FREE, tmp_path)
    assert other.hold(taken.number) is None
    os.close(inherited)
    assert other.hold(taken.number) is not None
    other.release(taken.number)


def test_uid_of_a_running_process_is_not_used(uids, monkeypatch):
    monkeypatch.setattr(linux, "uids_in_use", lambda: {FREE[0]})
    assert uids.take(()).number == FREE[1]


def test_uid_of_a_user_is_refused(tmp_path):
    user = pwd.getpwall()[-1]
    with pytest.raises(SettingError, match=user.pw_name):
        Uids(range(user.pw_uid, user.pw_uid + 1), tmp_path)


def test_processes_and_their_users():
    assert os.getuid() in linux.uids_in_use()
    assert os.getpid() in linux.pids()
    own = linux.status_of(os.getpid())
    assert own is not None
    assert own.runs
    assert own.uids[:3] == os.getresuid()
    assert linux.user_has_processes(os.getuid())
    assert not any(linux.user_has_processes(uid) for uid in (FREE[0], 2**31 - 2))


@pytest.mark.parametrize(
    ("state", "threads", "runs"), [("R", 1, True), ("Z", 1, False), ("Z", 2, True), ("X", 0, False)]
)
def test_process_whose_first_thread_has_ended(tmp_path, monkeypatch, state, threads, runs):
    """It runs as long as another thread does."""
    status = f"Name:\ta\\nUid:\nState:\t{state} (…)\nUid:\t1\t2\t3\t4\nThreads:\t{threads}\n"
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(status)
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    assert linux.status_of(7) == ((1, 2, 3, 4), runs)
    assert linux.status_of(8) is None
