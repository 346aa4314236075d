"""Line c: how soon a worker exits after its task has returned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.baseline import bare_script_times_s
from benchmarks.remote_task import TaskListener
from benchmarks.systems import Worker
from benchmarks.table_line import Line
from benchmarks.viewers import Viewers

if TYPE_CHECKING:
    from benchmarks.plan import Plan

VIEWERS = 3
TASK_ENDED = {"code": 1000, "reason": "task success"}


def c(plan: Plan) -> list[Line]:
    """From the task's return to exit; every viewer receives the outcome."""
    ours_s: list[float] = []
    base_s: list[float] = []
    with TaskListener() as listener:
        for _ in plan.rounds("c: ending"):
            base_s.append(bare_script_times_s(listener)[1])
            with Worker(listener) as worker:
                worker.task.show(plan.still_page)
                with Viewers([worker.url() for _ in range(VIEWERS)]) as viewers:
                    returned_s = worker.task.finish()
                    ours_s.append(worker.wait() - returned_s)
                    closed = viewers.ask("closed")
            if closed != [TASK_ENDED] * VIEWERS:
                raise RuntimeError(f"a viewer did not receive the outcome: {closed}")
    return [
        Line(
            key="c",
            what=f"the task's return → exit, {VIEWERS} viewers notified",
            against="bare script",
            unit="s",
            ours=ours_s,
            base=base_s,
            compare="difference",
            limit=0.25,
        )
    ]
