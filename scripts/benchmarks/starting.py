"""Lines a, b, c, j: how soon a task begins and ends, alone and ten at once."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.audience import Audience
from benchmarks.chains import HERE, Worker, chromium
from benchmarks.line import Line
from benchmarks.stage import Stage

if TYPE_CHECKING:
    import subprocess

    from benchmarks.plan import Plan

VIEWERS = 3
TASK_ENDED = {"code": 1000, "reason": "task success"}


def start_bare(stage: Stage) -> subprocess.Popen[bytes]:
    """Start the bare script."""
    return processes.start(
        processes.python(str(HERE / "bare.py"), stage.path),
        {"BENCH_CHROMIUM": chromium(), "PYTHONPATH": str(HERE)},
    )


def bare(stage: Stage) -> tuple[float, float]:
    """One run of the bare script: seconds until its task begins, and from its return to exit."""
    exec_s = time.monotonic()
    process = start_bare(stage)
    try:
        puppet = stage.puppet()
        returned_s = puppet.finish()
        process.wait(processes.STOP_S)
        return puppet.began_s - exec_s, time.monotonic() - returned_s
    finally:
        processes.stop(process)


def a_and_b(plan: Plan) -> list[Line]:
    """Exec until the task's first line; and until a viewer has its first picture."""
    begun, framed, base, alone = [], [], [], []
    with Stage() as stage:
        for _ in plan.rounds("a, b: starting"):
            base.append(bare(stage)[0])
            with Worker(stage) as worker:
                begun.append(worker.puppet.began_s - worker.exec_s)
                worker.puppet.finish()
                worker.wait()
                plan.stages = worker.event("worker.finished")["stages_ms"]
            alone.append(begun[-1])
            with Worker(stage) as worker, Audience([]) as audience:
                framed.append(audience.connect(worker.url()) - worker.exec_s)
                worker.puppet.finish()
                worker.wait()
    return [
        Line(
            key="a",
            what="exec → the task's first line, its page open",
            against="bare script",
            unit="s",
            ours=begun,
            base=base,
            limit=1.10,
        ),
        Line(
            key="b",
            what="exec → a viewer has its first picture",
            against="the worker's own a",
            unit="s",
            ours=framed,
            base=alone,
            limit=0.6,
        ),
    ]


def c(plan: Plan) -> list[Line]:
    """The task's return until exit, with viewers who are all told how it ended."""
    ours, base = [], []
    with Stage() as stage:
        for _ in plan.rounds("c: ending"):
            base.append(bare(stage)[1])
            with Worker(stage) as worker:
                worker.puppet.show(plan.still_page)
                with Audience([worker.url() for _ in range(VIEWERS)]) as audience:
                    returned_s = worker.puppet.finish()
                    ours.append(worker.wait() - returned_s)
                    told = audience.ask("closed")
            if told != [TASK_ENDED] * VIEWERS:
                raise RuntimeError(f"a viewer was not told how the task ended: {told}")
    return [
        Line(
            key="c",
            what=f"the task's return → exit, {VIEWERS} viewers told",
            against="bare script",
            unit="s",
            ours=ours,
            base=base,
            compare="difference",
            limit=0.25,
        )
    ]


def j(plan: Plan) -> list[Line]:
    """Many at once: the middle one's start, and the memory of all."""
    count = plan.workers_at_once
    ours: list[tuple[float, float]] = []
    base: list[tuple[float, float]] = []
    with Stage() as stage:
        for _ in plan.rounds(f"j: {count} at once"):
            base.append(_bare_at_once(stage, count))
            ours.append(_workers_at_once(stage, count))
    seconds = Line(
        key="j",
        what=f"{count} at once: exec → first line",
        against=f"{count} bare scripts",
        unit="s",
        ours=[each[0] for each in ours],
        base=[each[0] for each in base],
        limit=1.15,
    )
    memory = Line(
        key="j",
        what=f"{count} at once: memory of everything (PSS)",
        against=f"{count} bare scripts",
        unit="MB",
        ours=[each[1] for each in ours],
        base=[each[1] for each in base],
        limit=1.15,
    )
    return [seconds, memory]


def _bare_at_once(stage: Stage, count: int) -> tuple[float, float]:
    with contextlib.ExitStack() as stack:
        exec_s = time.monotonic()
        running = [start_bare(stage) for _ in range(count)]
        for process in running:
            stack.callback(processes.stop, process)
        puppets = [stage.puppet() for _ in running]
        memory = sum(processes.pss_mb(processes.tree(process.pid)) for process in running)
        for puppet in puppets:
            puppet.finish()
        for process in running:
            process.wait(processes.STOP_S * 3)
        return _middle([puppet.began_s - exec_s for puppet in puppets]), memory


def _workers_at_once(stage: Stage, count: int) -> tuple[float, float]:
    with contextlib.ExitStack() as stack:
        exec_s = time.monotonic()
        running = [stack.enter_context(Worker(stage)) for _ in range(count)]
        puppets = [stage.puppet() for _ in running]
        memory = sum(processes.pss_mb(processes.tree(each.process.pid)) for each in running)
        for puppet in puppets:
            puppet.finish()
        for each in running:
            each.wait()
        return _middle([puppet.began_s - exec_s for puppet in puppets]), memory


def _middle(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]
