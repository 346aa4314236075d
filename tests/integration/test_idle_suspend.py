"""x11vnc costs nothing while nobody watches, and viewers never notice."""

from __future__ import annotations

import os
import signal

from rfb_client import Viewer
from worker_run import PROGRAMS, eventually, is_stopped

TASKS = str(PROGRAMS / "tasks.py")


def test_x11vnc_sleeps_until_somebody_watches(run, tmp_path):
    """It is stopped, woken by a viewer, stopped again, and still ends with the session."""
    file = tmp_path / "end"
    worker = run(f"{TASKS}:until_with_page", "--input", f"file={file}")
    worker.event("task.started")
    pid = worker.pid("x11vnc -display")
    for _ in range(2):
        eventually(lambda: is_stopped(pid), what="x11vnc is stopped")
        with Viewer.connect(worker.stream_url()) as viewer:
            viewer.request_update(incremental=False)
            viewer.read_update(10)
            eventually(lambda: viewer.pixel(960, 700) == (20, 120, 220) or again(viewer))
            assert not is_stopped(pid)
    eventually(lambda: is_stopped(pid), what="x11vnc is stopped again")
    file.write_text("end")
    assert worker.wait() == 0


def test_a_new_stream_server_wakes_it(run, tmp_path):
    """The stream server is killed while x11vnc sleeps: the next viewer gets its picture."""
    file = tmp_path / "end"
    worker = run(f"{TASKS}:until", "--input", f"file={file}")
    worker.event("task.started")
    pid, server = worker.pid("x11vnc -display"), worker.pid("worker.stream")

    def asleep():
        """Stop the server in a moment in which x11vnc is stopped, too."""
        os.kill(server, signal.SIGSTOP)
        eventually(lambda: is_stopped(server))
        if is_stopped(pid):
            return True
        os.kill(server, signal.SIGCONT)
        return False

    eventually(asleep, what="x11vnc is stopped")
    os.kill(server, signal.SIGKILL)
    worker.event("websockify.restarted")
    with Viewer.connect(worker.stream_url()) as viewer:
        viewer.request_update(incremental=False)
        assert viewer.read_update(10).rects
    file.write_text("end")
    assert worker.wait() == 0


def again(viewer):
    """Ask for the rest of the picture."""
    viewer.request_update(incremental=False)
    viewer.read_update(10)
