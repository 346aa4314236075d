"""The end of a local task's processes, which nothing but their uid separates from others'."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from required import skip_or_fail
from worker_run import PROGRAMS, eventually

from worker import linux
from worker.api.runners.local.isolation import kill_all
from worker.api.runners.local.isolation.mechanism import Isolation
from worker.api.runners.local.isolation.uids import Uids
from worker.api.runners.local.task_folder import TaskFolder

FIRST = 4_000_000_000 + 10 * os.getpid()  # others than those of tests that run at the same time
FREE = range(FIRST, FIRST + 10)
FORKING = PROGRAMS / "forking.py"
KINDS = ("chain", "sessions", "double", "executes", "bomb", "threads", "first_thread_ended", "many",
         "stopper")  # fmt: skip
HIDDEN = 'mount -t proc -o hidepid=2 proc /proc && exec setpriv --bounding-set "$@"'
STOPPED = """
import os, signal, sys
del sys.argv[0]
sys.path.append(sys.argv[0].partition("/worker/api/")[0])
from worker.api.runners.local.isolation import kill_all
kill_all._become = lambda uid: (os.setresuid(uid, uid, uid), os.kill(os.getpid(), signal.SIGSTOP))
sys.exit(kill_all.main())
"""
FEW = "-sys_ptrace,-sys_resource"


@pytest.fixture
def start():
    """Start processes of a kind as a user; they are ended after the test, if they still run."""
    if os.geteuid() != 0:
        skip_or_fail("root", "run the tests as root")
    started = []

    def begin(kind, uid):
        started.append(
            subprocess.Popen(
                [sys.executable, "-I", str(FORKING), kind, str(uid)], start_new_session=True
            )
        )
        eventually(lambda: linux.user_has_processes(uid), what="its processes")

    yield begin
    for each in started:
        each.wait(timeout=60)


@pytest.mark.parametrize("kind", KINDS)
def test_processes_without_landlock(tmp_path, start, kind):
    """All are killed, also if they stop processes of their own user; the uid is free again."""
    uids = Uids(FREE, tmp_path / "locks")
    uid = uids.take(()).number
    folder = TaskFolder(path=tmp_path / "task")
    isolation = Isolation(uids=uids, assigns_uids=True)
    isolation.prepare(folder, uid)
    start(kind, uid)
    assert isolation.clean_up(folder, uid)
    assert linux.running_processes_of(uid) == []
    assert Uids(FREE, tmp_path / "locks").hold(uid) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_processes_that_stop_the_child(start, kind):
    """The same, if they stop each child that has become their user, before it could kill them."""
    uid = FREE[-2]
    start(kind, uid)
    command = [sys.executable, "-I", "-c", STOPPED, kill_all.__file__, str(uid)]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    assert linux.running_processes_of(uid) == []


@pytest.mark.parametrize("kind", ["chain", "bomb", "many"])
def test_hidden_processes_with_few_capabilities(start, kind):
    """The same, if /proc hides them and RLIMIT_NPROC cannot be set."""
    uid = FREE[-1]
    start(kind, uid)
    program = [sys.executable, "-I", "-S", kill_all.__file__, str(uid)]
    command = ["unshare", "--mount", "sh", "-c", HIDDEN, "sh", FEW, *program]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    assert linux.running_processes_of(uid) == []
