"""Input: a `view` viewer changes nothing, and one `control` viewer at a time is admitted."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from rfb_client import Closed, Ended, Refused, Viewer
from worker_run import PROGRAMS, eventually
from x_client import Observer

TASKS = str(PROGRAMS / "tasks.py")
SHIFT, CONTROL, DELETE = 0xFFE1, 0xFFE3, 0xFFFF


@pytest.fixture
def field(run, tmp_path):
    """A worker whose page has one text field, and what is in the field."""
    worker = run(f"{TASKS}:field", "--input", f"file={tmp_path / 'end'}")
    seen = tmp_path / "seen"
    eventually(seen.exists, timeout_s=30, what="the page is there")
    return worker, seen.read_text


@pytest.fixture
def worker(run):
    """A worker whose display is empty."""
    started = run("--", "sleep", "600")
    started.event("task.started")
    return started


def connect(worker, role):
    """A viewer that has seen its first frame."""
    viewer = Viewer.connect(worker.stream_url(role))
    viewer.request_update(incremental=False)
    viewer.read_update(10)
    return viewer


def type_keys(viewer, text):
    """Press and release a key for each character."""
    for character in text:
        viewer.key(ord(character), True)
        viewer.key(ord(character), False)


def chord(viewer, modifier, character):
    """Press a key while holding a modifier."""
    viewer.key(modifier, True)
    type_keys(viewer, character)
    viewer.key(modifier, False)


def round_trip(viewer):
    """Return when the server has processed everything that the viewer sent before."""
    viewer.request_update(incremental=False, w=1, h=1)
    viewer.read_update(10)


def input_state(worker):
    """Everything on the display that input could change."""
    with Observer(worker.display, worker.xauthority) as observer:
        return (
            observer.pointer_position(),
            observer.buttons_down(),
            observer.keys_down(),
            observer.screen_size(),
            observer.selection_owner("CLIPBOARD"),
            observer.selection_owner("PRIMARY"),
            observer.cut_buffer(),
        )


def test_view_viewer_changes_nothing(field):
    """A viewer that types, clicks, pastes and resizes changes nothing on the display."""
    worker, text = field
    before = input_state(worker)
    with connect(worker, "view") as viewer:
        viewer.key(SHIFT, True)
        type_keys(viewer, "abc")
        for buttons in (0, 1, 4, 8):
            viewer.pointer(300 + buttons, 200, buttons)
        viewer.cut_text("pasted")
        viewer.set_desktop_size(800, 600)
        round_trip(viewer)
        assert (viewer.width, viewer.height) == (1920, 1080)
        assert input_state(worker) == before
    assert text() == ""
    assert not worker.processes("x11vnc_control")


def test_keys_of_the_control_viewer_reach_the_page(field):
    """Typed text appears in the page's text field, and the pixels of other viewers change."""
    worker, text = field
    with connect(worker, "view") as watching, connect(worker, "control") as controller:
        before = bytes(watching.framebuffer)
        type_keys(controller, "hello, worker")
        eventually(lambda: text() == "hello, worker", what="the text is in the field")
        controller.pointer(700, 600)
        with Observer(worker.display, worker.xauthority) as observer:
            eventually(lambda: observer.pointer_position() == (700, 600), what="the pointer moved")
        watching.request_update(incremental=True)
        watching.read_update(10)
        assert bytes(watching.framebuffer) != before


def test_second_control_viewer_gets_409(worker):
    """It keeps its token, and is admitted after the first one has left."""
    second = worker.stream_url("control")
    with connect(worker, "control"):
        for _ in range(2):
            with pytest.raises(Refused) as refused:
                Viewer.connect(second)
            assert (refused.value.status, refused.value.detail) == (
                409,
                "Another viewer has control",
            )
        connect(worker, "view").close()
    Viewer.connect(second).close()


@pytest.mark.parametrize("how", ["abort", "close"])
def test_held_keys_are_released(worker, how):
    """When a control viewer disconnects, its keys and buttons are released and control is free."""
    controller = connect(worker, "control")
    with Observer(worker.display, worker.xauthority) as observer:
        controller.key(SHIFT, True)
        controller.key(ord("A"), True)
        controller.pointer(900, 300, 1)
        eventually(lambda: len(observer.keys_down()) == 2 and observer.buttons_down() == {1})
        controller.close() if how == "close" else controller.websocket.abort()
        eventually(lambda: not observer.keys_down() and not observer.buttons_down())
    eventually(lambda: control_is_free(worker), timeout_s=5, what="control is free")


def control_is_free(worker):
    """Whether a control viewer is admitted."""
    try:
        Viewer.connect(worker.stream_url("control")).close()
    except Refused as refused:
        assert refused.status == 409
        return False
    return True


def test_paste(field):
    """Clipboard text of the control viewer is pasted into the page with Ctrl+V."""
    worker, text = field
    with connect(worker, "control") as controller:
        controller.cut_text("gr\u00fc\u00dfe")
        press_paste(worker, controller)
        eventually(lambda: text() == "gr\u00fc\u00dfe", what="the text was pasted")


def press_paste(worker, controller):
    """Press Ctrl+V once x11vnc owns the clipboard."""
    with Observer(worker.display, worker.xauthority) as observer:
        eventually(lambda: observer.selection_owner("CLIPBOARD") is not None)
    chord(controller, CONTROL, "v")


def received(viewer, text):
    """Whether the viewer has received this clipboard text; reads more from the stream."""
    viewer.request_update(incremental=True, w=1, h=1)
    with contextlib.suppress(TimeoutError):
        viewer.read_update(0.05)
    return text in viewer.cut_texts


def test_copy(field):
    """Text copied in the page is sent to the control viewer and to no other viewer."""
    worker, text = field
    with connect(worker, "view") as watching, connect(worker, "control") as controller:
        type_keys(controller, "secret")
        eventually(lambda: text() == "secret")
        chord(controller, CONTROL, "a")
        chord(controller, CONTROL, "c")
        eventually(lambda: received(controller, "secret"), what="the control viewer receives it")
        round_trip(watching)
        assert not watching.cut_texts


def test_x11vnc_of_control_killed(field):
    """The control viewer gets 1012 and can reconnect; other viewers stay connected."""
    worker, text = field
    with connect(worker, "view") as watching:
        with connect(worker, "control") as controller:
            os.kill(worker.pid("x11vnc_control.sock"), signal.SIGKILL)
            assert controller.wait_closed(10) == Closed(1012, "display server restarting")
        with connect(worker, "control") as controller:
            type_keys(controller, "again")
            eventually(lambda: text() == "again")
        round_trip(watching)


def test_x11vnc_of_control_runs_only_while_needed(worker):
    """There is no second x11vnc before the first control viewer, nor some time after the last."""
    connect(worker, "view").close()
    assert not worker.processes("x11vnc_control.sock")
    connect(worker, "control").close()
    assert worker.processes("x11vnc_control.sock")
    eventually(lambda: not worker.processes("x11vnc_control.sock"), timeout_s=20)


def test_end_of_task_closes_the_control_viewer(field, tmp_path):
    """The control viewer gets close code 1000 and the outcome."""
    worker, _ = field
    controller = connect(worker, "control")
    (tmp_path / "end").write_text("end")
    with pytest.raises(Ended):
        while True:
            controller.request_update(incremental=False)
            controller.read_update(10)
    assert controller.wait_closed(5) == Closed(1000, "task success")
    assert worker.wait() == 0
