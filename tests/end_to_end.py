"""The end-to-end check: one task, watched to its end, the same for every way to run it."""

from __future__ import annotations

from typing import Any, Protocol

from rfb_client import Closed, Viewer
from viewers import ActiveViewer, idle, mouse_mover

BLUE = (20, 120, 220)
TARGET = "tasks.py:until_with_page"  # in tests/programs; its input `file` names what it waits for


class Run(Protocol):
    """One run of TARGET, on this machine or in a container."""

    events: list[dict[str, Any]]

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event."""

    def stream_url(self) -> str:
        """A fresh URL."""

    def end_task(self, word: str) -> None:
        """Write the word into the task's file, which ends the task."""

    def wait(self) -> int:
        """Wait until it ends; return the exit code."""

    @property
    def result(self) -> dict[str, Any]:
        """`result.json`."""


def watch(run: Run) -> list[ActiveViewer]:
    """Connect an idle viewer and one that moves the mouse; return when both have a frame."""
    run.event("task.started")
    watchers = [
        ActiveViewer(idle, Viewer.connect(run.stream_url())),
        ActiveViewer(mouse_mover, Viewer.connect(run.stream_url())),
    ]
    for watcher in watchers:
        watcher.wait_ready(20)
    return watchers


def see_page(run: Run) -> None:
    """Wait until a viewer sees the task's page."""
    with Viewer.connect(run.stream_url()) as viewer:
        viewer.request_update(incremental=False)
        viewer.read_update(20)
        while viewer.pixel(960, 700) != BLUE:
            viewer.request_update(incremental=True)
            viewer.read_update(20)


def assert_watched_to_the_end(run: Run) -> None:
    """Check that viewers see the page, and that they and the caller get the outcome."""
    watchers = watch(run)
    see_page(run)
    run.end_task("end")
    assert [watcher.result(20) for watcher in watchers] == [Closed(1000, "task success")] * 2
    assert [watcher.result(1).clean for watcher in watchers] == [True] * 2
    assert run.wait() == 0
    assert run.result["status"] == "success"
    assert run.result["output"] == [1920, 1080, 1920, 1080]
    assert [event["event"] for event in run.events].count("worker.finished") == 1
    assert run.events[-1]["event"] == "worker.finished"
    assert (run.events[-1]["status"], run.events[-1]["exit_code"]) == ("success", 0)
