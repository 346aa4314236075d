"""A program of the session dies: it is restarted, or the session ends with 70."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from repeated import repeated
from rfb_client import Closed, Refused, Viewer
from viewers import ActiveViewer, busy_updater, idle, mouse_mover
from worker_run import PROGRAMS, eventually

TASKS = str(PROGRAMS / "tasks.py")
COMMAND_LINES = {"x11vnc": "x11vnc -display", "websockify": "worker.stream.server"}


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


@pytest.mark.parametrize("name", ["x11vnc -display", "worker.stream"])
def test_stream_lost_and_ready_again(task, name):
    """Viewers can connect again after each loss, which two events report; the task goes on."""
    for count, _ in enumerate(range(3), 1):
        os.kill(task.pid(name), signal.SIGKILL)
        lost = task.event("stream.lost", count=count)
        assert lost["why"] == "it was killed by a signal"
        assert name in COMMAND_LINES[lost["program"]]
        assert task.event("stream.ready", count=count + 1)["port"] == task.port
        with Viewer.connect(task.stream_url()) as viewer:
            viewer.request_update(incremental=False)
            assert viewer.read_update(10).rects
    task.finish()
    assert task.wait() == 0


def test_viewers_are_refused_while_x11vnc_is_down(run, tmp_path):
    """They get 503 with Retry-After, and the task ends with its own outcome."""
    gate = tmp_path / "gate"
    fake_program(tmp_path, "x11vnc", f"[ ! -e {gate} ] || exit 1")
    file = tmp_path / "end"
    worker = run(f"{TASKS}:until", "--input", f"file={file}", env=fake_path(tmp_path))
    worker.event("task.started")
    gate.touch()
    os.kill(worker.pid("x11vnc -display"), signal.SIGKILL)
    worker.event("stream.lost")
    with pytest.raises(Refused) as refused:
        Viewer.connect(worker.stream_url())
    assert refused.value.status == 503
    assert "retry-after" in {name.lower() for name in refused.value.headers}
    file.write_text("end")
    assert worker.wait() == 0


@pytest.mark.parametrize("name", ["x11vnc", "matchbox-window-manager"])
def test_killed_before_it_is_ready(run, tmp_path, name):
    """A program that is killed while it starts is started again."""
    marks = tmp_path / "starts"
    marks.mkdir()
    fake_program(
        tmp_path, name, f"mktemp -p {marks}; [ $(ls {marks} | wc -l) -gt 2 ] || kill -KILL $$"
    )
    worker = run(f"{TASKS}:plain", env=fake_path(tmp_path))
    assert worker.wait() == 0
    assert len(list(marks.iterdir())) >= 3


def test_stream_server_killed_before_it_is_ready(run):
    """Like the programs of the display."""
    worker = run(f"{TASKS}:plain")
    killed: list[int] = []
    while len(killed) < 2:
        started = [pid for pid in worker.processes("worker.stream") if pid not in killed]
        for pid in started[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    assert worker.wait() == 0
    assert worker.event("websockify.restarted")["restarts"] == 2


@pytest.mark.parametrize("name", ["Xvfb -displayfd", "supervisor.supervisord"])
def test_irreplaceable_program_killed_while_it_starts(run, name):
    """The session ends with 70 as soon as it is observed, not at the end of the start limit."""
    worker = run(f"{TASKS}:plain")
    os.kill(min(eventually(lambda: worker.processes(name))), signal.SIGKILL)
    assert worker.wait() == 70
    assert worker.result["error"]["type"] == "SessionLost"


@pytest.mark.parametrize(
    ("event", "task"),
    [("worker.started", "sleeps"), ("xvfb.started", "sleeps"), ("x11vnc.started", "titled")],
)
def test_supervisord_killed_during_the_start(run, event, task):
    """The loss is observed at once, whatever waits for supervisord or for one of its programs."""
    worker = run(f"{TASKS}:{task}")
    worker.event(event)
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.pid("supervisor.supervisord"), signal.SIGKILL)
    assert worker.wait() == 70
    assert worker.result["error"]["type"] == "SessionLost"


@repeated(20)
@pytest.mark.parametrize("name", ["Xvfb -displayfd", "supervisor.supervisord"])
def test_display_lost(run, tmp_path, name, repetition):
    """Without Xvfb or supervisord the session ends with 70, and every viewer gets 1011."""
    worker = run(
        f"{TASKS}:until", "--input", f"file={tmp_path / 'end'}", env={"WORKER_MAX_VIEWERS": "32"}
    )
    worker.event("task.started")
    acts = [idle, mouse_mover, busy_updater] * (8 if repetition else 2)  # more only for races
    watchers = [ActiveViewer(act, Viewer.connect(worker.stream_url())) for act in acts]
    for watcher in watchers:
        watcher.wait_ready(60)
    os.kill(worker.pid(name), signal.SIGKILL)
    ends = [watcher.result(30) for watcher in watchers]
    assert ends == [Closed(1011, "display lost")] * len(watchers)
    assert worker.wait() == 70
    assert worker.result["error"]["type"] == "SessionLost"


@pytest.mark.parametrize("event", ["x11vnc.started", "task.started"])
def test_display_lost_is_reported_as_the_cause(run, event):
    """The browser and the window manager fail when Xvfb is killed; the loss is what is reported.

    The loss is reported late here, because its report contains output that supervisord has.
    """
    worker = run(f"{TASKS}:works")
    worker.event(event)
    os.kill(worker.pid("supervisor.supervisord"), signal.SIGSTOP)
    os.kill(worker.pid("Xvfb -displayfd"), signal.SIGKILL)
    assert worker.wait() == 70
    assert worker.result["error"]["type"] == "SessionLost"


def test_supervisord_terminated(task):
    """It stops its programs; the stream server does not call that a restart."""
    watcher = ActiveViewer(idle, Viewer.connect(task.stream_url()))
    watcher.wait_ready(10)
    os.kill(task.pid("supervisor.supervisord"), signal.SIGTERM)
    assert watcher.result(20) == Closed(1011, "display lost")
    assert task.wait() == 70


def test_supervisord_stopped(task):
    """A loss of the stream is reported and, when supervisord runs again, repaired."""
    supervisord = task.pid("supervisor.supervisord")
    os.kill(supervisord, signal.SIGSTOP)
    os.kill(task.pid("x11vnc -display"), signal.SIGKILL)
    task.event("stream.lost")
    os.kill(supervisord, signal.SIGCONT)
    task.event("stream.ready", count=2)
    os.kill(supervisord, signal.SIGSTOP)
    task.finish()
    assert task.wait() == 0


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


def fake_program(folder, name, script):
    """Make a program of this name that runs a script, and then the real program."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\n{script}\nexec {shutil.which(name)} "$@"\n')
    path.chmod(0o755)


def fake_path(folder):
    """The environment in which the fake programs are found."""
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("x11vnc", "echo this fails >&2; exit 1"),
        ("matchbox-window-manager", "echo this fails >&2; exit 1"),
        ("Xvfb", "echo this fails >&2; exit 1"),
        ("x11vnc", "echo this fails >&2; exit 127"),
    ],
)
def test_program_that_never_starts(run, tmp_path, name, script):
    """A program that exits at every start ends the session with 70 and its last output."""
    fake_program(tmp_path, name, script)
    worker = run(f"{TASKS}:plain", env=fake_path(tmp_path))
    assert worker.wait() == 70
    assert "this fails" in worker.result["error"]["message"]


@pytest.mark.soak
def test_program_that_is_killed_at_every_start(run, tmp_path):
    """It is restarted until the start limit, which ends the session with 70 and names it."""
    fake_program(tmp_path, "x11vnc", "kill -KILL $$")
    worker = run(f"{TASKS}:plain", env=fake_path(tmp_path))
    assert worker.wait() == 70
    assert "x11vnc ended" in worker.result["error"]["message"]


def test_program_that_cannot_be_executed(run, tmp_path):
    """It ends the session with 70 at once."""
    fake_program(tmp_path, "x11vnc", "")
    (tmp_path / "bin/x11vnc").write_text("#!/no/such/interpreter\n")
    worker = run(f"{TASKS}:plain", env=fake_path(tmp_path))
    assert worker.wait() == 70
    assert "x11vnc did not start" in worker.result["error"]["message"]


def test_supervisord_obeys_its_session_only(task):
    """Another process of the same user has neither its password nor its config."""
    folder = task.session_folder
    assert folder.stat().st_mode & 0o777 == 0o700
    for credentials in ("", "Authorization: Basic d29ya2VyOg==\r\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(folder / "supervisor.sock"))
            connection.sendall(
                f"POST /RPC2 HTTP/1.0\r\n{credentials}Content-Length: 0\r\n\r\n".encode()
            )
            assert connection.recv(100).startswith(b"HTTP/1.0 401 "), credentials
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if b"password" in path.read_bytes()]
    command_lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in task.processes()]
    assert not [line for line in command_lines if b"password" in line]
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
