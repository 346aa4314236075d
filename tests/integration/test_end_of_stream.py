"""At the end of the stream every viewer gets 1000 and the outcome, whatever it is doing."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time

import pytest
from repeated import repeated
from rfb_client import Closed, Ended, Refused, Viewer
from viewers import (
    SMALL_BUFFER_BYTES,
    Act,
    ActiveViewer,
    ReconnectingViewer,
    busy_updater,
    idle,
    large_update,
    mouse_mover,
)
from worker_run import PROGRAMS

from worker.stream import tokens

TASKS = str(PROGRAMS / "tasks.py")
BLUE, ORANGE = (20, 120, 220), (240, 140, 20)
LATE_S = 0.4
STREAM_KEY = "ab" * 32
ENDS = {
    "success": ("task success", 0),
    "failure": ("task failed", 1),
    "timeout": ("task failed", 124),
    "sigterm": ("task cancelled", 143),
}


def end(worker, how, file):
    """End the task, unless it ends by its timeout."""
    if how == "success":
        file.write_text("end")
    elif how == "failure":
        file.write_text("fail")
    elif how == "sigterm":
        worker.signal(signal.SIGTERM)


def watch(worker):
    """Connect the five kinds of viewers, and wait until each is in its characteristic state."""
    slow = Viewer.connect(worker.stream_url(), recv_buffer_bytes=SMALL_BUFFER_BYTES)
    watchers = [
        ActiveViewer(idle, Viewer.connect(worker.stream_url())),
        ActiveViewer(mouse_mover, Viewer.connect(worker.stream_url())),
        ActiveViewer(busy_updater, Viewer.connect(worker.stream_url())),
        ActiveViewer(
            functools.partial(busy_updater, outstanding=4), Viewer.connect(worker.stream_url())
        ),
        ActiveViewer(large_update, slow),
    ]
    for watcher in watchers:
        watcher.wait_ready(20)
    return watchers


class SignedUrls:
    """Stream URLs for a viewer that connects repeatedly, each used once; signed by the test."""

    def __init__(self, worker):
        self._base = f"ws://127.0.0.1:{worker.port}"
        self._task_id = worker.event("worker.started")["task_id"]

    def __call__(self):
        token = tokens.mint(bytes.fromhex(STREAM_KEY), self._task_id)
        return tokens.stream_url(self._base, self._task_id, token)


def assert_reconnecting_viewer(attempts, reason):
    """Verify that it was admitted until the end, and then got 1000 and 409."""
    for attempt in attempts[:-1]:
        assert attempt.left or attempt.outcome == Closed(1000, reason)
    refused = attempts[-1].outcome
    assert isinstance(refused, Refused), refused
    assert refused.status == 409


def delay_the_end(worker):
    """Let the stream server refuse viewers for a second before it ends.

    supervisord waits for that long before it kills the stopped window manager.
    """
    worker.event("window_manager.started")
    os.kill(worker.pid("matchbox-window-manager"), signal.SIGSTOP)


@repeated(20)
@pytest.mark.parametrize("how", ENDS)
def test_every_viewer_gets_the_outcome(run, tmp_path, how):
    """Idle and busy viewers, and one that is just connecting."""
    reason, code = ENDS[how]
    file = tmp_path / "end"
    arguments = ["--timeout-s", "5"] if how == "timeout" else []
    env = {"WORKER_STREAM_KEY": STREAM_KEY}
    worker = run(f"{TASKS}:until", "--input", f"file={file}", *arguments, env=env)
    watchers = watch(worker)
    late = ReconnectingViewer(SignedUrls(worker))
    late.wait_ready(20)
    delay_the_end(worker)
    end(worker, how, file)
    closed = [watcher.result(20) for watcher in watchers]
    assert closed == [Closed(1000, reason)] * len(watchers)
    assert [each.clean for each in closed] == [True] * len(watchers)
    assert_reconnecting_viewer(late.result(20), reason)
    assert worker.wait() == code
    codes = [event["code"] for event in worker.events if event["event"] == "viewer.closed"]
    assert codes == [1000] * len(codes)


@pytest.mark.parametrize(
    "how",
    [
        *("success", "sigterm"),  # the browser is closed by the task, and by the session
        *(pytest.param(how, marks=pytest.mark.soak) for how in ("failure", "timeout")),
    ],
)
def test_every_viewer_of_a_real_page_gets_the_outcome(run, tmp_path, how):
    reason, code = ENDS[how]
    file = tmp_path / "end"
    arguments = ["--timeout-s", "6"] if how == "timeout" else []
    worker = run(f"{TASKS}:until_with_page", "--input", f"file={file}", *arguments)
    watchers = watch(worker)
    end(worker, how, file)
    assert [watcher.result(20) for watcher in watchers] == [Closed(1000, reason)] * len(watchers)
    assert worker.wait() == code


def test_twenty_viewers_all_get_the_outcome(run, tmp_path):
    file = tmp_path / "end"
    many = {"WORKER_MAX_VIEWERS": "20"}
    worker = run(f"{TASKS}:until", "--input", f"file={file}", env=many)
    acts: list[Act] = [
        idle,
        functools.partial(mouse_mover, interval_s=0.02),
        busy_updater,
        idle,
    ] * 5
    watchers = [ActiveViewer(act, Viewer.connect(worker.stream_url())) for act in acts]
    for watcher in watchers:
        watcher.wait_ready(30)
    file.write_text("end")
    assert [watcher.result(30) for watcher in watchers] == [Closed(1000, "task success")] * 20
    assert worker.wait() == 0


def watch_recoloured(worker, file, *, when_blue=lambda: None):
    """Make the task paint orange last, and watch to the end; return the last colour seen."""
    with Viewer.connect(worker.stream_url()) as viewer, contextlib.suppress(Ended):
        viewer.request_update(incremental=False)
        while viewer.pixel(960, 700) != BLUE:
            viewer.read_update(20)
            viewer.request_update(incremental=True)
        when_blue()
        file.write_text("rgb(240, 140, 20)")
        while viewer.pixel(960, 700) != ORANGE:
            viewer.read_update(20)
            viewer.request_update(incremental=True)
    return viewer.pixel(960, 700)


def test_last_thing_drawn_is_the_last_thing_seen(run, tmp_path):
    file = tmp_path / "colour"
    worker = run(f"{TASKS}:recoloured", "--input", f"file={file}")
    assert watch_recoloured(worker, file) == ORANGE
    assert worker.wait() == 0


def test_last_thing_drawn_is_seen_if_x11vnc_is_late(run, tmp_path):
    """On a busy machine x11vnc may not run for a while at that moment."""
    file = tmp_path / "colour"
    worker = run(f"{TASKS}:recoloured", "--input", f"file={file}")
    with contextlib.ExitStack() as stack:

        def busy():
            worker.event("x11vnc.started")
            x11vnc = worker.pid("x11vnc -display")
            os.kill(x11vnc, signal.SIGSTOP)
            late = threading.Thread(target=go_on, args=(x11vnc,))
            late.start()
            stack.callback(late.join)

        def go_on(x11vnc):
            worker.event("task.finished")
            time.sleep(LATE_S)  # not to synchronise: x11vnc does not run for this time
            os.kill(x11vnc, signal.SIGCONT)

        assert watch_recoloured(worker, file, when_blue=busy) == ORANGE
    assert worker.wait() == 0


def test_viewer_that_connects_after_the_task_finished_gets_409(run):
    """It does not get a stream that ends at once."""
    env = {"WORKER_STREAM_KEY": STREAM_KEY}
    worker = run("--hold-s", "0", "--", "sleep", "600", env=env)
    worker.event("task.started")
    url = worker.stream_url()
    delay_the_end(worker)
    worker.signal(signal.SIGTERM)
    worker.event("task.finished")
    with pytest.raises(Refused) as refused:
        Viewer.connect(url)
    assert refused.value.status == 409
    assert refused.value.detail == "Stream not available: task is not running"
    assert worker.wait() == 143
