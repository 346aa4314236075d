"""x11vnc costs nothing while nobody watches, and viewers never notice."""

from __future__ import annotations

from pathlib import Path

from rfb_client import Viewer
from worker_run import PROGRAMS, eventually

TASKS = str(PROGRAMS / "tasks.py")


def state(pid):
    """Its state as proc(5) has it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_x11vnc_sleeps_until_somebody_watches(run, tmp_path):
    """It is stopped, woken by a viewer, stopped again, and still ends with the session."""
    file = tmp_path / "end"
    worker = run(f"{TASKS}:until_with_page", "--input", f"file={file}")
    worker.event("task.started")
    pid = worker.pid("x11vnc -display")
    for _ in range(2):
        eventually(lambda: state(pid) == "T", what="x11vnc is stopped")
        with Viewer.connect(worker.stream_url()) as viewer:
            viewer.request_update(incremental=False)
            viewer.read_update(10)
            eventually(lambda: viewer.pixel(960, 700) == (20, 120, 220) or again(viewer))
            assert state(pid) != "T"
    eventually(lambda: state(pid) == "T", what="x11vnc is stopped again")
    file.write_text("end")
    assert worker.wait() == 0


def again(viewer):
    """Ask for the rest of the picture."""
    viewer.request_update(incremental=False)
    viewer.read_update(10)
