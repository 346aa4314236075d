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
    """The modes of the segments that a process has made (sysvipc(7): 3rd and 5th column)."""
    lines = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return [int(line[2], 8) for line in lines if line[4] == str(creator_pid)]


def goes_with_its_users(creator_pid):
    """Whether each segment of this process, which has some, will be gone with those who use it."""
    modes = segments(creator_pid)
    return modes and all(mode & SHM_DEST for mode in modes)


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_is_left(run, tmp_path, killed):
    """Neither of an x11vnc that was stopped, nor of one that was killed, nor of a controller's."""
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


def test_nothing_is_left_of_a_worker_that_was_killed(run):
    """The worker and all that it started end at once, with nobody left to clean up."""
    worker = run("--", "sleep", "600")
    worker.event("stream.ready")
    pid = worker.pid("x11vnc -display")
    eventually(lambda: goes_with_its_users(pid), what="its segments are marked")
    for each in worker.processes():
        with contextlib.suppress(ProcessLookupError):  # it went with the one before
            os.kill(each, signal.SIGKILL)
    eventually(lambda: not segments(pid), what="its segments are gone")
    shutil.rmtree(worker.session_folder)
    Path(f"/tmp/.X11-unix/X{worker.display.removeprefix(':')}").unlink(missing_ok=True)
