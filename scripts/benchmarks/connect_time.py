"""Line d: how soon a viewer that connects has its first complete picture."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks.remote_task import TaskListener
from benchmarks.systems import Stock, Worker, Xvnc, installed
from benchmarks.table_line import Line
from benchmarks.viewers import Viewers

if TYPE_CHECKING:
    from benchmarks.plan import Plan
    from benchmarks.systems import System


def d(plan: Plan) -> list[Line]:
    """From TCP connect until the first complete picture of a real page is decoded."""
    kinds: list[type[System]] = [Worker, *installed(plan, "d", Stock, Xvnc)]
    found: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(TaskListener())
        systems: list[System] = []
        for kind in kinds:
            systems.append(kind(listener))
            stack.push(systems[-1])
        for system in systems:
            system.task.show(plan.still_page)
        for _ in plan.rounds("d: connecting", at_least=3):
            for system in systems:
                with Viewers([system.url()]) as viewers:
                    found[system.name].append(viewers.first_frames_s[0])
        for system in systems:
            system.task.finish()
    return [
        Line(
            key="d",
            what="a viewer's connect → first complete picture",
            against=kind.name,
            unit="ms",
            ours=[1000 * value for value in found["worker"]],
            base=[1000 * value for value in found[kind.name]],
            limit={"stock": 0.33, "Xvnc": 1.0}[kind.name],
        )
        for kind in kinds[1:]
    ]
