"""Lines f and g: the frame rate that a viewer gets, and the page's own with viewers."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.baseline import start_bare_script
from benchmarks.remote_task import ANIMATION, TaskListener
from benchmarks.systems import Worker, Xvnc, installed
from benchmarks.table_line import Line
from benchmarks.viewers import Viewers

if TYPE_CHECKING:
    from benchmarks.plan import Plan
    from benchmarks.remote_task import RemoteTask


def f(plan: Plan) -> list[Line]:
    """Updates per second of a full-screen animation."""
    kinds = installed(plan, "f", Xvnc)
    if not kinds:
        return []
    found: dict[str, list[float]] = {Worker.name: [], Xvnc.name: []}
    with TaskListener() as listener:
        for _ in plan.rounds("f: updates per second"):
            for kind in (Worker, Xvnc):
                with kind(listener) as system:
                    system.task.show(ANIMATION)
                    with Viewers([system.url()], skip_pixels=True) as viewers:
                        found[kind.name].append(_updates_per_s(viewers, plan.window_s))
    return [
        Line(
            key="f",
            what="updates per second of a full-screen animation",
            against="Xvnc",
            unit="/s",
            ours=found["worker"],
            base=found["Xvnc"],
            limit=0.8,
            at_least=True,
        )
    ]


def _updates_per_s(viewers: Viewers, window_s: float) -> float:
    before_s, before = viewers.ask("count")
    time.sleep(window_s)
    after_s, after = viewers.ask("count")
    return float((after[0] - before[0]) / (after_s - before_s))


def g(plan: Plan) -> list[Line]:
    """The page's own frame rate with viewers, against a page without a stream."""
    found: dict[int, list[float]] = {count: [] for count in plan.viewer_counts}
    base = []
    with TaskListener() as listener:
        for _ in plan.rounds("g: the page's frames"):
            with Worker(listener) as worker:
                worker.task.show(ANIMATION)
                for count in plan.viewer_counts:
                    urls = [worker.url() for _ in range(count)]
                    with Viewers(urls, skip_pixels=True) if urls else contextlib.nullcontext():
                        found[count].append(_frames_per_s(worker.task, plan.window_s))
            base.append(_bare_frames_per_s(listener, plan.window_s))
    return [
        Line(
            key="g",
            what=f"the page's own frames per second, {count} viewer{'s' if count != 1 else ''}",
            against="no stream",
            unit="/s",
            ours=rates,
            base=base,
            limit=0.9 if count == 1 else None,
            at_least=True,
        )
        for count, rates in found.items()
    ]


def _frames_per_s(task: RemoteTask, window_s: float) -> float:
    script = "[performance.now(), window.frames_drawn]"
    before = task.evaluate(script)
    time.sleep(window_s)
    after = task.evaluate(script)
    return float(1000 * (after[1] - before[1]) / (after[0] - before[0]))


def _bare_frames_per_s(listener: TaskListener, window_s: float) -> float:
    process = start_bare_script(listener)
    try:
        task = listener.next_task()
        task.show(ANIMATION)
        return _frames_per_s(task, window_s)
    finally:
        processes.stop(process)
