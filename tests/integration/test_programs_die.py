"""A program of the session dies: it is restarted, or the session ends with 70."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from repeated import repeated
from rfb_client import Closed, Viewer
from viewers import ActiveViewer, idle, mouse_mover
from worker_run import PROGRAMS, eventually

TASKS = str(PROGRAMS / "tasks.py")


@pytest.fixture
def task(run, tmp_path):
    """A task that runs until its file appears."""
    worker = run(f"{TASKS}:until", "--input", f"file={tmp_path / 'end'}")
    worker.event("task.started")
    worker.finish = lambda: (tmp_path / "end").write_text("end")
    return worker


@repeated(10)
def test_x11vnc_killed(task):
    """Viewers get 1012 and reconnect with a fresh URL; the task continues."""
    watchers = [ActiveViewer(act, Viewer.connect(task.stream_url())) for act in (idle, mouse_mover)]
    for watcher in watchers:
        watcher.wait_ready(10)
    os.kill(task.pid("x11vnc -display"), signal.SIGKILL)
    for watcher in watchers:
        assert watcher.result(10) == Closed(1012, "display server restarting")
    task.event("x11vnc.restarted", timeout_s=10)
    with Viewer.connect(task.stream_url()) as viewer:
        viewer.request_update(incremental=False)
        assert viewer.read_update(10).rects
        task.finish()
        assert viewer.wait_closed(10) == Closed(1000, "task success")
    assert task.wait() == 0


@repeated(10)
def test_websockify_killed(task):
    """It is restarted on the same port and still refuses used tokens."""
    port = task.port
    url = task.stream_url()
    Viewer.connect(url).close()
    os.kill(task.pid("worker.stream"), signal.SIGKILL)
    task.event("websockify.restarted", timeout_s=10)
    assert task.port == port
    with pytest.raises(Exception, match="401"):
        Viewer.connect(url)
    with Viewer.connect(task.stream_url()) as viewer:
        task.finish()
        assert viewer.wait_closed(10) == Closed(1000, "task success")
    assert task.wait() == 0


def test_websockify_stopped(task):
    """On TERM, as from supervisorctl, it closes its viewers with 1012 and is restarted."""
    url = task.stream_url()
    watcher = ActiveViewer(idle, Viewer.connect(task.stream_url()))
    watcher.wait_ready(10)
    os.kill(task.pid("worker.stream"), signal.SIGTERM)
    assert watcher.result(10) == Closed(1012, "display server restarting")
    with Viewer.connect(url) as viewer:
        task.event("websockify.restarted", timeout_s=10)
        task.finish()
        assert viewer.wait_closed(10) == Closed(1000, "task success")
    assert task.wait() == 0


def test_window_manager_killed(task):
    """It is restarted."""
    os.kill(task.pid("matchbox-window-manager"), signal.SIGKILL)
    task.event("window_manager.restarted", timeout_s=10)
    task.finish()
    assert task.wait() == 0


@pytest.mark.parametrize("name", ["Xvfb -displayfd", "supervisor.supervisord"])
def test_display_lost(task, name):
    """Without Xvfb or supervisord the session ends with 70, and viewers get 1011."""
    watcher = ActiveViewer(idle, Viewer.connect(task.stream_url()))
    watcher.wait_ready(10)
    os.kill(task.pid(name), signal.SIGKILL)
    assert watcher.result(10) == Closed(1011, "display lost")
    assert task.wait() == 70
    assert task.result["error"]["type"] == "SessionLost"


def test_task_process_killed(run):
    """The task has failed with 128 + 9, and no process of its browser is left."""
    worker = run(f"{TASKS}:sleeps_with_page")
    worker.event("task.started")
    os.kill(worker.pid("worker.task.child"), signal.SIGKILL)
    assert worker.wait() == 137
    assert worker.result["status"] == "failed"


@pytest.mark.parametrize("name", ["/chromium ", "playwright/driver/node"])
def test_browser_killed(run, tmp_path, name):
    """Without Chromium or Playwright's driver the task's next call fails; no process is left."""
    worker = run(f"{TASKS}:until_with_page", "--input", f"file={tmp_path / 'never'}")
    worker.event("task.started")
    os.kill(worker.pid(name), signal.SIGKILL)
    assert worker.wait() == 1


@repeated(10)
def test_worker_killed(run):
    """The kernel signals the children of a killed worker (PR_SET_PDEATHSIG); none is left."""
    worker = run(f"{TASKS}:sleeps_with_page")
    worker.event("task.started")
    folder = worker.session_folder
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    eventually(lambda: not worker.processes(), timeout_s=15)
    shutil.rmtree(folder)  # the worker that removes it was killed
    display = worker.display.removeprefix(":")
    Path(f"/tmp/.X11-unix/X{display}").unlink(missing_ok=True)


def test_program_that_never_starts(run, tmp_path):
    """A program that ends at every start ends the session with 70 and its last output."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "x11vnc").write_text("#!/bin/sh\necho cannot read the display >&2\nexit 1\n")
    (fake / "x11vnc").chmod(0o755)
    worker = run(f"{TASKS}:plain", env={"PATH": f"{fake}:{os.environ['PATH']}"})
    assert worker.wait() == 70
    assert "cannot read the display" in worker.result["error"]["message"]


def test_xvfb_that_does_not_start(run, tmp_path):
    """An Xvfb that ends at once ends the session with 70 and its last output."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "Xvfb").write_text("#!/bin/sh\necho no fonts at all >&2\nexit 1\n")
    (fake / "Xvfb").chmod(0o755)
    worker = run(f"{TASKS}:plain", env={"PATH": f"{fake}:{os.environ['PATH']}"})
    assert worker.wait() == 70
    assert "no fonts at all" in worker.result["error"]["message"]


def test_supervisorctl(task):
    """`supervisorctl -c <the session's config> status` lists the running programs."""
    config = task.session_folder / "supervisord.conf"
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(config), "status"]
    status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert status.count("RUNNING") == 4
    assert task.session_folder.stat().st_mode & 0o777 == 0o700
    task.finish()
    assert task.wait() == 0


def stale_lock():
    """Make the lock file of a display that does not exist."""
    for number in range(900, 1000):
        path = Path(f"/tmp/.X{number}-lock")
        with contextlib.suppress(FileExistsError), path.open("x") as file:
            file.write(f"{2**22 - 1:>10}\n")
            return path
    pytest.fail("no lock file can be made")


def test_stale_lock(run):
    """A stale X lock does not prevent a start; a live server's files are not changed."""
    read, write = os.pipe()
    other = subprocess.Popen(["Xvfb", "-displayfd", str(write)], pass_fds=[write], stderr=-3)
    os.close(write)
    with os.fdopen(read) as pipe:
        number = pipe.readline().strip()
    live = Path(f"/tmp/.X11-unix/X{number}")
    lock = stale_lock()
    try:
        worker = run(f"{TASKS}:plain")
        assert worker.wait() == 0
        assert live.exists()
        assert other.poll() is None
        assert lock.exists()
    finally:
        lock.unlink()
        other.terminate()
        other.wait()


def test_x_socket_of_a_killed_xvfb_is_removed(run, tmp_path):
    """The next worker can use the same display number."""
    for _ in range(2):
        worker = run(f"{TASKS}:until", "--input", f"file={tmp_path / 'never'}")
        worker.event("task.started")
        os.kill(worker.pid("Xvfb -displayfd"), signal.SIGKILL)
        assert worker.wait() == 70
        assert not worker.leftovers()
