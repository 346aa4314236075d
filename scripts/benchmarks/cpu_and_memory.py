"""Lines h and i: CPU and memory of all processes except the browser and the task."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.remote_task import TaskListener
from benchmarks.systems import Stock, Worker, installed
from benchmarks.table_line import Line
from benchmarks.viewers import Viewers

if TYPE_CHECKING:
    from benchmarks.plan import Plan
    from benchmarks.systems import System

VIEWERS = 5
SETTLE_S = 1.0
IDLE_SETTLE_S = 5.0  # x11vnc is suspended some seconds after the last viewer has left


def h(plan: Plan) -> list[Line]:
    """CPU on a still page without viewers, then with one."""
    found: dict[int, list[float]] = {0: [], 1: []}
    with TaskListener() as listener, Worker(listener) as worker:
        worker.task.show(plan.still_page)
        for _ in plan.rounds("h: CPU"):
            for count, percents in found.items():
                urls = [worker.url() for _ in range(count)]
                with Viewers(urls) if urls else contextlib.nullcontext():
                    time.sleep(SETTLE_S if count else IDLE_SETTLE_S)
                    percents.append(_cpu_percent(worker, plan.window_s))
        worker.task.finish()
    return [
        Line(
            key="h",
            what=f"CPU on a still page, {text}",
            against="",
            unit="%",
            ours=found[count],
            compare="value",
            limit=limit,
        )
        for count, text, limit in ((0, "no viewer", 0.5), (1, "one viewer", 3.0))
    ]


def _cpu_percent(system: System, window_s: float) -> float:
    pids = system.own_processes()
    began_s, before = time.monotonic(), processes.cpu_s(pids)
    time.sleep(window_s)
    return 100 * (processes.cpu_s(pids) - before) / (time.monotonic() - began_s)


def i(plan: Plan) -> list[Line]:
    """Memory with one viewer, and of each additional one."""
    ours: list[tuple[float, float]] = []
    base: list[tuple[float, float]] = []
    with TaskListener() as listener:
        for _ in plan.rounds("i: memory"):
            for kind, found in (
                (Worker, ours),
                *((kind, base) for kind in installed(plan, "i", Stock)),
            ):
                with kind(listener) as system:
                    system.task.show(plan.still_page)
                    found.append(_memory_mb(system))
    one = Line(
        key="i",
        what="memory (PSS), one viewer",
        against="stock" if base else "",
        unit="MB",
        ours=[each[0] for each in ours],
        base=[each[0] for each in base],
        compare="ratio" if base else "value",
        limit=1.0,
    )
    additional = Line(
        key="i",
        what="memory of each additional viewer",
        against="",
        unit="MB",
        ours=[each[1] for each in ours],
        compare="value",
        limit=3,
    )
    return [one, additional]


def _memory_mb(system: System) -> tuple[float, float]:
    with Viewers([system.url()]):
        time.sleep(SETTLE_S)
        one = processes.pss_mb(system.own_processes())
        with Viewers([system.url() for _ in range(VIEWERS - 1)]):
            time.sleep(SETTLE_S)
            many = processes.pss_mb(system.own_processes())
    return one, (many - one) / (VIEWERS - 1)
