"""Viewers and tasks go on after the stream server, the worker, or all of it was suspended."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rfb_client import Closed, Viewer
from worker_run import MARK, PROGRAMS, eventually, is_stopped, marked_processes
from x_client import Canvas

from worker.session.session import START_TIMEOUT_S
from worker.stream.policy import SILENT_S

TASKS = str(PROGRAMS / "tasks.py")
PLACE = {"x": 100, "y": 100}
COLOURS = [(200, 10, 10), (10, 200, 10)]
TASK_TIMEOUT_S = 20
LONG_S = 2 * SILENT_S
LONG = pytest.param(LONG_S, marks=[pytest.mark.soak, pytest.mark.timeout(600)])
ROUNDS = 3
STARTS = 5
START_S = 1.0
REQUESTS = 30

_VIEWER = """
import sys
from rfb_client import Ended, Viewer

with Viewer.connect(sys.argv[1]) as viewer:
    viewer.request_update(incremental=False)
    try:
        while True:
            viewer.read_update(600)
            viewer.request_update(incremental=True)
            print("update", flush=True)
    except Ended as ended:
        print(ended.closed)
"""


def stream_server(worker):
    return [worker.pid("worker.stream")]


def whole_worker(worker):
    """Its processes, the ones that others wait for first."""
    return sorted(worker.processes())


def sent(pid, signal_number):
    """Signal a process; False if it has ended."""
    try:
        os.kill(pid, signal_number)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def suspended(pids, resumed=None):
    """Stop processes, as when the machine is suspended; `resumed`: in which order they go on."""
    stopped = [pid for pid in pids if sent(pid, signal.SIGSTOP)]
    try:
        eventually(lambda: all(is_stopped(pid) for pid in stopped), what="they are stopped")
        yield
    finally:
        for pid in resumed or reversed(pids):
            sent(pid, signal.SIGCONT)


def chance(seed):
    """Reproducible random numbers."""
    return random.Random(seed)  # noqa: S311 - chooses test inputs


def suspend(mark, seconds, order):
    """Stop all processes with this mark for some seconds, in a random order."""
    pids = marked_processes(mark)
    with suspended(order.sample(pids, len(pids)), order.sample(pids, len(pids))):
        time.sleep(seconds)


@pytest.mark.parametrize("processes", [stream_server, whole_worker])
@pytest.mark.parametrize("seconds", [0, LONG])
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


@pytest.mark.soak
def test_viewer_that_asks_again_while_x11vnc_is_stopped_is_kept(run):
    """What it has asked for is not answered with a frame for each request afterwards."""
    worker = run("--", "sleep", "600")
    with Viewer.connect(worker.stream_url()) as viewer:
        viewer.request_update(incremental=False)
        viewer.read_update(20)
        received = viewer.websocket.received_bytes
        with suspended([worker.pid("x11vnc -display")]):
            for _ in range(REQUESTS):
                viewer.request_update(incremental=False)
                time.sleep(0.5)  # as a viewer does that has its own timeout
        with contextlib.suppress(TimeoutError):
            while True:
                viewer.read_update(2)
        frames = (viewer.websocket.received_bytes - received) / (viewer.width * viewer.height * 4)
    assert frames < 3
    assert "limit" not in worker.event("viewer.closed")


class ViewerProcess:
    """A viewer in a process of its own, with a mark, that reads all the time."""

    def __init__(self, url, mark):
        environ = {**os.environ, MARK: mark, "PYTHONPATH": str(Path(__file__).parents[1])}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _VIEWER, url], env=environ, stdout=subprocess.PIPE, text=True
        )
        self.wait_for_update()

    def wait_for_update(self):
        """Wait until it has received an update from now on; several may be buffered."""
        assert self.process.stdout.readline() == "update\n"

    def closed(self):
        """How its stream has ended."""
        return self.process.communicate(timeout=60)[0].splitlines()[-1]


def assert_undisturbed(worker):
    """No program was lost, and no viewer."""
    names = {event["event"] for event in worker.events}
    assert not {name for name in names if name.endswith((".lost", ".restarted", ".failed"))}
    assert "limit" not in worker.event("viewer.closed")


@pytest.mark.parametrize("seconds", [0, LONG])
def test_everything_goes_on_after_a_suspension(run, tmp_path, seconds):
    """The viewer's process is suspended too, and they go on in any order."""
    end = tmp_path / "end"
    worker = run(f"{TASKS}:until_with_animation", "--input", f"file={end}")
    worker.event("task.started")
    viewer = ViewerProcess(worker.stream_url(), worker.mark)
    with viewer.process:
        for number in range(ROUNDS):
            suspend(worker.mark, seconds, chance(number))
            viewer.wait_for_update()
        end.write_text("end")
        assert viewer.closed() == str(Closed(1000, "task success"))
    assert worker.wait() == 0
    assert_undisturbed(worker)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(STARTS))
def test_start_goes_on_after_a_suspension(run, number):
    """A suspension longer than the whole start may take, at any moment of it."""
    order = chance(number)
    worker = run(f"{TASKS}:titled")
    worker.event("worker.started")
    time.sleep(order.uniform(0, START_S))  # the moment is the parameter
    suspend(worker.mark, START_TIMEOUT_S + 2, order)
    assert worker.wait() == 0


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_task_of_the_api_goes_on_after_a_suspension(serve, tmp_path):
    """Longer than the task's timeout and what the watchdog adds; its viewer is kept."""
    gate = tmp_path / "gate"
    api = serve({"WORKER_TIMEOUT_S": str(TASK_TIMEOUT_S)})
    api.sign_in()
    task = api.start_task("gated", input_parameters={"gate": str(gate)})
    api.wait_for_status(task, "running")
    with Viewer.connect(api.get(f"/tasks/{task}/stream").json()["stream_url"]) as viewer:
        viewer.request_update(incremental=False)
        viewer.read_update(20)
        suspend(api.mark, LONG_S, chance(0))
        viewer.request_update(incremental=False)
        viewer.read_update(20)
        gate.write_text("go")
        assert api.wait_for_status(task, "success", "failed", "cancelled")["status"] == "success"
        assert viewer.wait_closed(20) == Closed(1000, "task success")
