"""Viewers stay connected while the stream server, or the whole worker, is suspended."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest
from rfb_client import Viewer
from worker_run import eventually, is_stopped
from x_client import Canvas

from worker.stream.policy import SILENT_S

PLACE = {"x": 100, "y": 100}
COLOURS = [(200, 10, 10), (10, 200, 10)]


def stream_server(worker):
    return [worker.pid("worker.stream")]


def whole_worker(worker):
    """Its processes, the ones that others wait for first."""
    return sorted(worker.processes())


@contextlib.contextmanager
def suspended(pids):
    """Stop processes, as when the machine is suspended."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: all(is_stopped(pid) for pid in pids), what="they are stopped")
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("processes", [stream_server, whole_worker])
@pytest.mark.parametrize(
    "seconds",
    [0, pytest.param(2 * SILENT_S, marks=[pytest.mark.soak, pytest.mark.timeout(300)])],
)
def test_viewer_is_kept_over_a_suspension(run, processes, seconds):
    """With more data under way than the sockets' buffers hold, it then gets what has changed."""
    worker = run("--", "sleep", "600")
    with (
        Canvas(worker.display, worker.xauthority, **PLACE, width=64, height=64) as canvas,
        Viewer.connect(worker.stream_url()) as viewer,
    ):
        viewer.request_update(incremental=False)
        viewer.read_update(20)
        for colour in COLOURS:
            canvas.fill(colour)
            viewer.request_update(incremental=False)
            with suspended(processes(worker)):
                viewer.request_update(incremental=True)
                time.sleep(seconds)
            while viewer.pixel(PLACE["x"] + 32, PLACE["y"] + 32) != colour:
                viewer.read_update(20)
                viewer.request_update(incremental=True)
        assert viewer.websocket.closed is None
    assert "limit" not in worker.event("viewer.closed")
