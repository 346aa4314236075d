"""Viewers that read and answer stay connected, however busy the machine and its disk are."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import pytest
from rfb_client import Viewer
from viewers import ActiveViewer
from worker_run import PROGRAMS, eventually

TASKS = str(PROGRAMS / "tasks.py")
VIEWERS = 5
BUSY_LOOPS = 4
UPDATES = 20
PERIOD_S = 10.0
SOAK_RUNS = 5
SOAK_PERIODS = 7
READ_S = 100  # as long as the test may take

_BUSY = "while True: pass"
_WRITE = """
import os, sys
block = os.urandom(4 << 20)
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        file.seek(0)
        for _ in range(8):
            file.write(block)
            os.fsync(file.fileno())
"""


@contextlib.contextmanager
def busy_machine(*folders):
    """Busy loops, and in each folder a program that writes to the disk all the time."""
    commands = [[_BUSY]] * BUSY_LOOPS
    commands += [[_WRITE, str(folder / "written")] for folder in folders]
    started = [subprocess.Popen([sys.executable, "-c", *command]) for command in commands]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
        for folder in folders:
            (folder / "written").unlink(missing_ok=True)


class Watcher:
    """Requests an update, reads it, and requests the next; `updates` are the times of all."""

    def __init__(self, url):
        self.updates = []
        self.active = ActiveViewer(self._watch, Viewer.connect(url, timeout_s=READ_S))

    def _watch(self, viewer, ready):
        viewer.request_update(incremental=False)
        while True:
            viewer.read_update(READ_S)
            viewer.request_update(incremental=True)
            self.updates.append(time.monotonic())
            ready()


@pytest.fixture
def watched(run, tmp_path):
    """A worker that shows an animation to viewers on a busy machine, and these viewers."""
    end = tmp_path / "end"
    worker = run(f"{TASKS}:until_with_animation", "--input", f"file={end}")
    worker.event("task.started")
    watchers = [Watcher(worker.stream_url()) for _ in range(VIEWERS)]
    for watcher in watchers:
        watcher.active.wait_ready(READ_S)
    with busy_machine(worker.tmpdir, worker.artifacts):
        yield worker, watchers
        end.write_text("end")
        results = [watcher.active.result(READ_S) for watcher in watchers]
        worker.wait(timeout_s=READ_S)
    assert [(each.code, each.reason) for each in results] == [(1000, "task success")] * VIEWERS
    closed = [each for each in worker.events if each["event"] == "viewer.closed"]
    assert [each["code"] for each in closed] == [1000] * VIEWERS
    assert not any("limit" in each for each in closed)
    assert not any(each["event"] == "stream.lost" for each in worker.events)


def count(watchers, since_s):
    """How many updates each has received since then."""
    return [sum(at >= since_s for at in watcher.updates) for watcher in watchers]


@pytest.mark.measured
def test_viewers_get_updates_on_a_busy_machine(watched):
    _, watchers = watched
    began = time.monotonic()
    eventually(lambda: min(count(watchers, began)) >= UPDATES, what="updates", timeout_s=READ_S)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("_run", range(SOAK_RUNS))
def test_viewers_are_kept_on_a_busy_machine(watched, _run):
    """Each viewer gets updates in each period."""
    _, watchers = watched
    counts = []
    for _ in range(SOAK_PERIODS):
        began = time.monotonic()
        time.sleep(PERIOD_S)  # the duration is the parameter
        counts.append(count(watchers, began))
    print(f"updates in {PERIOD_S:g} s, of each viewer: {counts}; load {os.getloadavg()[0]:.1f}")
    assert min(min(each) for each in counts) > 0
