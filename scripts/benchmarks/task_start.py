"""Lines a and b: how soon a task begins, and how soon a viewer has its first picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.baseline import bare_script_times_s
from benchmarks.remote_task import TaskListener
from benchmarks.systems import Worker
from benchmarks.table_line import Line
from benchmarks.viewers import Viewers

if TYPE_CHECKING:
    from benchmarks.plan import Plan


def a_and_b(plan: Plan) -> list[Line]:
    """From exec to the task's first line, and to a viewer's first picture."""
    begun_s: list[float] = []
    framed_s: list[float] = []
    base_s: list[float] = []
    with TaskListener() as listener:
        for _ in plan.rounds("a, b: starting"):
            base_s.append(bare_script_times_s(listener)[0])
            with Worker(listener) as worker:
                begun_s.append(worker.task.began_s - worker.exec_s)
                worker.task.finish()
                worker.wait()
                plan.stages = worker.event("worker.finished")["stages_ms"]
            with Worker(listener) as worker, Viewers([]) as viewers:
                framed_s.append(viewers.connect(worker.url()) - worker.exec_s)
                worker.task.finish()
                worker.wait()
    return [
        Line(
            key="a",
            what="exec → the task's first line, its page open",
            against="bare script",
            unit="s",
            ours=begun_s,
            base=base_s,
            limit=1.10,
        ),
        Line(
            key="b",
            what="exec → a viewer has its first picture",
            against="the worker's own a",
            unit="s",
            ours=framed_s,
            base=begun_s,
            limit=0.6,
        ),
    ]
