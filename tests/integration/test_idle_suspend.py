"""x11vnc is suspended while no viewer is connected."""

from __future__ import annotations

import os
import signal

from rfb_client import Viewer
from worker_run import PROGRAMS, eventually, is_stopped

TASKS = str(PROGRAMS / "tasks.py")


def test_x11vnc_is_suspended_while_no_viewer_is_connected(run, tmp_path):
    """It is suspended, resumed for a viewer, suspended again, and ends with the session."""
    file = tmp_path / "end"
    worker = run(f"{TASKS}:until_with_page", "--input", f"file={file}")
    worker.event("task.started")
    pid = worker.pid("x11vnc -display")
    for _ in range(2):
        eventually(lambda: is_stopped(pid), what="x11vnc is stopped")
        with Viewer.connect(worker.stream_url()) as viewer:
            viewer.request_update(incremental=False)
            viewer.read_update(10)
            eventually(lambda: viewer.pixel(960, 700) == (20, 120, 220) or request_again(viewer))
            assert not is_stopped(pid)
    eventually(lambda: is_stopped(pid), what="x11vnc is stopped again")
    file.write_text("end")
    assert worker.wait() == 0


def test_a_new_stream_server_resumes_x11vnc(run, tmp_path):
    """After the stream server is killed while x11vnc is suspended, a viewer gets its frame."""
    file = tmp_path / "end"
    worker = run(f"{TASKS}:until", "--input", f"file={file}")
    worker.event("task.started")
    pid, server = worker.pid("x11vnc -display"), worker.pid("worker.stream")

    def both_stopped():
        """Stop the server while x11vnc is stopped."""
        os.kill(server, signal.SIGSTOP)
        eventually(lambda: is_stopped(server))
        if is_stopped(pid):
            return True
        os.kill(server, signal.SIGCONT)
        return False

    eventually(both_stopped, what="x11vnc is stopped")
    os.kill(server, signal.SIGKILL)
    worker.event("websockify.restarted")
    with Viewer.connect(worker.stream_url()) as viewer:
        viewer.request_update(incremental=False)
        assert viewer.read_update(10).rects
    file.write_text("end")
    assert worker.wait() == 0


def request_again(viewer):
    """Request the whole frame again."""
    viewer.request_update(incremental=False)
    viewer.read_update(10)
