"""No System V shared memory is left on the host, however x11vnc ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest
from rfb_client import Viewer
from worker_run import PROGRAMS, eventually

TASKS = str(PROGRAMS / "tasks.py")


SHM_DEST = 0o1000  # shmctl(2)


def segments(creator_pid):
    """Modes of the segments that a process created (/proc/sysvipc/shm, columns 3 and 5)."""
    lines = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return [int(line[2], 8) for line in lines if line[4] == str(creator_pid)]


def marked_for_removal(creator_pid):
    """Whether the process has segments, and all are removed when the last user detaches."""
    modes = segments(creator_pid)
    return modes and all(mode & SHM_DEST for mode in modes)


@pytest.mark.parametrize("killed", [False, True])
def test_no_segment_is_left(run, tmp_path, killed):
    """Not of a stopped x11vnc, nor of a killed one, nor of the one for control."""
    file = tmp_path / "end"
    worker = run(f"{TASKS}:until", "--input", f"file={file}")
    worker.event("stream.ready")
    pids = [worker.pid("x11vnc -display")]
    eventually(lambda: segments(pids[0]), what="it has segments")
    with Viewer.connect(worker.stream_url("control")) as viewer:
        pids.append(worker.pid("x11vnc_control.sock"))
        viewer.request_update(incremental=False)
        viewer.read_update(10)
        if killed:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            worker.event("x11vnc.restarted")
            pids.append(worker.pid("x11vnc -display"))
    file.write_text("end")
    assert worker.wait() == 0
    assert [segments(pid) for pid in pids] == [[]] * len(pids)


def test_no_segment_is_left_of_a_killed_worker(run):
    """The worker and all its processes are killed, so that none can clean up."""
    worker = run("--", "sleep", "600")
    worker.event("task.started")  # no process is added any more
    pid = worker.pid("x11vnc -display")
    eventually(lambda: marked_for_removal(pid), what="its segments are marked")
    for each in worker.processes():
        with contextlib.suppress(ProcessLookupError):  # ended with the previous one
            os.kill(each, signal.SIGKILL)
    eventually(lambda: not segments(pid), what="its segments are removed")
    shutil.rmtree(worker.session_folder)
    Path(f"/tmp/.X11-unix/X{worker.display.removeprefix(':')}").unlink(missing_ok=True)


def test_no_segment_is_left_of_a_crash_loop(run, tmp_path):
    """Of x11vncs that are killed as soon as they exist, or as soon as they have segments."""
    file = tmp_path / "end"
    worker = run(f"{TASKS}:until", "--input", f"file={file}")
    worker.event("stream.ready")
    killed: list[int] = []
    for number in range(5):
        pid = eventually(lambda: next(iter(x11vncs(worker) - set(killed)), None))
        if number % 2:
            eventually(lambda pid=pid: segments(pid), what="it has segments")
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
    worker.event("stream.ready", count=2)
    file.write_text("end")
    assert worker.wait() == 0
    assert [segments(pid) for pid in killed] == [[]] * len(killed)


def x11vncs(worker):
    """The x11vncs that run."""
    return set(worker.processes("x11vnc -display"))
