"""Lines h, i: the CPU and the memory of everything but the browser and the task."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.audience import Audience
from benchmarks.chains import Stock, Worker
from benchmarks.line import Line
from benchmarks.stage import Stage
from benchmarks.watching import peers

if TYPE_CHECKING:
    from benchmarks.chains import Chain
    from benchmarks.plan import Plan

MANY = 5
SETTLE_S = 1.0
NOBODY_SETTLE_S = 5.0  # the worker goes to rest a while after the last viewer has left


def h(plan: Plan) -> list[Line]:
    """CPU on a still page: nobody watches, then one does."""
    found: dict[int, list[float]] = {0: [], 1: []}
    with Stage() as stage, Worker(stage) as worker:
        worker.puppet.show(plan.still_page)
        for _ in plan.rounds("h: CPU"):
            for count, percents in found.items():
                urls = [worker.url() for _ in range(count)]
                with Audience(urls) if urls else contextlib.nullcontext():
                    time.sleep(SETTLE_S if count else NOBODY_SETTLE_S)
                    percents.append(_cpu_percent(worker, plan.window_s))
        worker.puppet.finish()
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
        for count, text, limit in ((0, "nobody watches", 0.5), (1, "one viewer", 3.0))
    ]


def _cpu_percent(chain: Chain, window_s: float) -> float:
    pids = chain.own_processes()
    began_s, before = time.monotonic(), processes.cpu_s(pids)
    time.sleep(window_s)
    return 100 * (processes.cpu_s(pids) - before) / (time.monotonic() - began_s)


def i(plan: Plan) -> list[Line]:
    """Memory with one viewer, and of each further one."""
    ours: list[tuple[float, float]] = []
    base: list[tuple[float, float]] = []
    with Stage() as stage:
        for _ in plan.rounds("i: memory"):
            for kind, found in (
                (Worker, ours),
                *((kind, base) for kind in peers(plan, "i", Stock)),
            ):
                with kind(stage) as chain:
                    chain.puppet.show(plan.still_page)
                    found.append(_memory_mb(chain))
    whole = Line(
        key="i",
        what="memory (PSS), one viewer",
        against="stock" if base else "",
        unit="MB",
        ours=[each[0] for each in ours],
        base=[each[0] for each in base],
        compare="ratio" if base else "value",
        limit=1.0,
    )
    further = Line(
        key="i",
        what="memory of each further viewer",
        against="",
        unit="MB",
        ours=[each[1] for each in ours],
        compare="value",
        limit=3,
    )
    return [whole, further]


def _memory_mb(chain: Chain) -> tuple[float, float]:
    with Audience([chain.url()]):
        time.sleep(SETTLE_S)
        one = processes.pss_mb(chain.own_processes())
        with Audience([chain.url() for _ in range(MANY - 1)]):
            time.sleep(SETTLE_S)
            many = processes.pss_mb(chain.own_processes())
    return one, (many - one) / (MANY - 1)
