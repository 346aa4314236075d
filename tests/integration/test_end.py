"""The reported end is accurate, and nothing is left, whatever a task or a killed worker does."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from worker_run import MARK, PROGRAMS, eventually, marked_processes

NAUGHTY = PROGRAMS / "naughty_tasks.py"


# -- processes that are hard to end


@pytest.mark.parametrize(
    "name", ["leaves_forking_processes", "leaves_respawning_processes", "ignores_signals_hidden"]
)
def test_processes_that_do_not_want_to_end(run, name):
    """The outcome is the task's, and none of its processes is left."""
    worker = run(f"{NAUGHTY}:{name}")
    assert worker.wait() == 0, worker.stderr
    assert "left" not in worker.event("worker.finished")
    assert not worker.processes()


def test_a_command_that_forks_and_ends_all_the_time(run):
    worker = run("--", sys.executable, str(NAUGHTY))
    worker.event("task.finished")
    assert worker.wait() == 0
    assert "left" not in worker.event("worker.finished")
    assert not worker.processes()


def hidden_proc(hidepid):
    """A shell command that runs its arguments as another user, in a /proc that hides processes."""
    as_user = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    as_user += " --inh-caps +dac_read_search --ambient-caps +dac_read_search"
    script = f'mount -t proc -o hidepid={hidepid} proc /proc && exec {as_user} "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


@pytest.mark.parametrize("hidepid", [None, 1, 2])
@pytest.mark.parametrize("arguments", [[], ["hidden"]], ids=["forking", "hidden"])
def test_processes_are_ended_without_a_cgroup(hidepid, arguments):
    """Also those that /proc hides; a spared process and what is below it stay."""
    mark = uuid.uuid4().hex
    program = [str(NAUGHTY)]
    if arguments:
        program = ["-c", "import naughty_tasks as n; n.ignores_signals_hidden()"]
    prefix = [] if hidepid is None else hidden_proc(hidepid)
    if prefix and os.geteuid() != 0:
        pytest.skip("only root can mount /proc")
    done = subprocess.run(
        [*prefix, sys.executable, str(PROGRAMS / "sweeping.py"), sys.executable, *program],
        env={**os.environ, MARK: mark, "PYTHONPATH": f"{PROGRAMS}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["spared"], report["task"], report["left"]) == (True, False, [])
    assert not marked_processes(mark)


LATE = """
import asyncio
from worker.process.children import Children

async def main():
    children = Children()
    child = children.spawn(["sleep", "600"], env={}, death_signal=9)
    await children.sweep(grace_s=0, limit_s=0)
    while child.running:
        await asyncio.sleep(0.01)
        children.left()

asyncio.run(main())
"""


def test_processes_are_killed_if_the_time_is_over():
    """As on a machine so busy that the worker did not run for longer than the sweep may take."""
    subprocess.run([sys.executable, "-c", LATE], timeout=30, check=True)


@pytest.fixture
def freezer():
    """A cgroup (version 1) whose processes can be frozen."""
    folder = Path(f"/sys/fs/cgroup/freezer/test-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no cgroup of version 1 can be created")
    yield folder
    (folder / "freezer.state").write_text("THAWED")
    eventually(lambda: not (folder / "tasks").read_text(), what="its processes end")
    folder.rmdir()


@pytest.mark.parametrize("program", ["function", pytest.param("command", marks=pytest.mark.soak)])
def test_a_process_that_cannot_be_killed_is_listed(run, tmp_path, freezer, program):
    """The end is reported within 25 s of the signal."""
    frozen = tmp_path / "frozen"
    inputs = {"freezer": str(freezer), "frozen": str(frozen)}
    target = [f"{NAUGHTY}:freezes", "--inputs", json.dumps(inputs)]
    if program == "command":
        script = f"sleep 600 & echo $! >{freezer}/tasks; echo FROZEN >{freezer}/freezer.state; "
        target = ["--", "sh", "-c", f"{script} trap '' TERM; touch {frozen}; sleep 600"]
    worker = run(*target)
    eventually(frozen.exists)
    (pid,) = map(int, (freezer / "tasks").read_text().split())
    worker.signal(signal.SIGTERM)
    assert worker.wait(timeout_s=25) == 143
    finished = worker.event("worker.finished")
    assert finished["left"] == [{"pid": pid, "command": "sleep"}]
    (freezer / "freezer.state").write_text("THAWED")


# -- errors and outputs


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("raises_much_text", "LookupError"),
        ("raises_what_has_no_text", "Hostile"),
        ("raises_group", "BaseExceptionGroup"),
        ("raises_in_callback", "SystemExit"),
        ("raises_cancelled", "CancelledError"),
        ("raises_exit", "SystemExit"),
        ("raises_with_a_closed_stderr", "LookupError"),
        ("exits", "Exited"),
        ("claims_a_failed_browser", "BrowserFailed"),
        ("closes_everything", "Exited"),
        ("leaves_the_connection_to_a_child", "Exited"),
        ("returns_deep", "ValueError"),
        ("returns_much", "ValueError"),
        ("returns_beyond_its_memory", "MemoryError"),
    ],
)
def test_every_error_is_the_tasks(run, name, kind):
    """The task has failed with exit code 1: a Job does not repeat it, as it would after 70."""
    worker = run(f"{NAUGHTY}:{name}")
    assert worker.wait() == 1, worker.stderr
    assert (worker.result["status"], worker.result["exit_code"]) == ("failed", 1)
    assert worker.result["error"]["type"] == kind
    assert [e["status"] for e in worker.events if e["event"] == "worker.finished"] == ["failed"]
    assert "worker/session/" not in worker.stderr  # no traceback of the session


# -- the clean-up


def test_a_deep_tree_is_removed(run):
    worker = run(f"{NAUGHTY}:leaves_a_deep_tree")
    assert worker.wait() == 0
    assert "left_files" not in worker.event("worker.finished")


def test_a_clean_up_that_fails_is_reported(run):
    """`worker.finished` is emitted, once, with what is left; the exit code is the task's."""
    if os.geteuid() != 0 or shutil.which("chattr") is None:
        pytest.skip("only root can make a file immutable")
    worker = run(f"{NAUGHTY}:leaves_an_immutable_file")
    code = worker.wait()
    if code == 1:
        pytest.skip("the file system has no immutable files")
    path = worker.result["output"]
    try:
        assert code == 0
        assert worker.event("worker.finished")["left_files"] == [f"{path}: Operation not permitted"]
        assert [e["event"] for e in worker.events].count("worker.finished") == 1
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    again = run("--", "true", env={"TMPDIR": str(worker.tmpdir)})
    assert again.wait() == 0
    assert again.event("session.removed")["folder"] == str(worker.session_folder)


# -- killed workers


def kill_all(worker):
    """Kill the worker and all of its processes at once, so that none can clean up."""
    pids = worker.processes()
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    worker.process.wait()


def test_the_next_worker_removes_what_a_killed_one_left(run):
    """Folder, X socket, shared memory and cgroup; a live worker's folder is not touched."""
    alive, killed = run("--", "sleep", "600"), run("--", "sleep", "600")
    for worker in (alive, killed):
        worker.event("task.started")
    folder, display = killed.session_folder, killed.display.removeprefix(":")
    kill_all(killed)
    moved = folder.rename(alive.tmpdir / folder.name)
    following = run("--", "true", env={"TMPDIR": str(alive.tmpdir)})
    assert following.wait() == 0
    eventually(lambda: not moved.exists(), what="the folder is removed")
    # Each worker searches its TMPDIR once its task runs: the first that sees the folder removes it.
    removed = [e for e in alive.events + following.events if e["event"] == "session.removed"]
    assert [event["folder"] for event in removed] == [str(moved)]
    assert alive.session_folder.exists()
    left = Path(f"/tmp/.X11-unix/X{display}")  # another test's server may have its number by now
    assert not left.exists() or f"@{left}\n" in Path("/proc/net/unix").read_text()
    assert not list(Path("/sys/fs/cgroup").rglob(folder.name))


def test_the_next_worker_ends_the_processes_of_a_killed_one(run):
    """Processes without a death signal survive their worker: here, a task's own."""
    killed = run("--", "sh", "-c", "setsid sleep 600 & exec sleep 600")
    killed.event("task.started")
    eventually(lambda: len(killed.processes("sleep 600")) == 3, what="the worker and both")
    killed.signal(signal.SIGKILL)
    killed.process.wait()
    eventually(lambda: len(killed.processes()) == 1, what="its own processes end")
    following = run("--", "true", env={"TMPDIR": str(killed.tmpdir)})
    assert following.wait() == 0
    eventually(lambda: not killed.processes())
