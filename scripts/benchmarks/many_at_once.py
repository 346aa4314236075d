"""Line j: start and memory of many workers that are started at the same time."""

from __future__ import annotations

import contextlib
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.baseline import start_bare_script
from benchmarks.remote_task import TaskListener
from benchmarks.systems import Worker
from benchmarks.table_line import Line

if TYPE_CHECKING:
    from benchmarks.plan import Plan


def j(plan: Plan) -> list[Line]:
    """The median start of many that are started together, and the memory of all."""
    count = plan.workers_at_once
    ours: list[tuple[float, float]] = []
    base: list[tuple[float, float]] = []
    with TaskListener() as listener:
        for _ in plan.rounds(f"j: {count} at once"):
            base.append(_bare_scripts_at_once(listener, count))
            ours.append(_workers_at_once(listener, count))
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


def _bare_scripts_at_once(listener: TaskListener, count: int) -> tuple[float, float]:
    with contextlib.ExitStack() as stack:
        exec_s = time.monotonic()
        running = [start_bare_script(listener) for _ in range(count)]
        for process in running:
            stack.callback(processes.stop, process)
        tasks = [listener.next_task() for _ in running]
        memory_mb = sum(processes.pss_mb(processes.tree(process.pid)) for process in running)
        for task in tasks:
            task.finish()
        for process in running:
            process.wait(processes.STOP_TIMEOUT_S * 3)
        return statistics.median_high(task.began_s - exec_s for task in tasks), memory_mb


def _workers_at_once(listener: TaskListener, count: int) -> tuple[float, float]:
    with contextlib.ExitStack() as stack:
        exec_s = time.monotonic()
        running = [stack.enter_context(Worker(listener)) for _ in range(count)]
        tasks = [listener.next_task() for _ in running]
        memory_mb = sum(processes.pss_mb(processes.tree(each.process.pid)) for each in running)
        for task in tasks:
            task.finish()
        for each in running:
            each.wait()
        return statistics.median_high(task.began_s - exec_s for task in tasks), memory_mb
