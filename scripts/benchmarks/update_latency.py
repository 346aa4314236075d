"""Line e: how soon a viewer has a change on the display."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import Xlib.ext
from x_client import Canvas

from benchmarks.remote_task import TaskListener
from benchmarks.systems import Stock, Worker, Xvnc, installed
from benchmarks.table_line import Line
from benchmarks.viewers import Viewers

if TYPE_CHECKING:
    from benchmarks.plan import Plan
    from benchmarks.systems import System

SPOT = (820, 620)
CANVAS_PX = 64
DRAW_EVERY_S = (0.06, 0.14)
LAST_UPDATES_S = 0.5
_STEPS = 16  # values of each colour component, far enough apart to survive JPEG
_NEVER_MS = 6000.0


# python-xlib fails in its XFIXES support with Xvnc's event numbers; drawing needs no extension.
Xlib.ext.__extensions__.clear()


def e(plan: Plan) -> list[Line]:
    """From a change on the display until a viewer has it, from the viewer's connect on."""
    kinds: list[type[System]] = [Worker, *installed(plan, "e", Xvnc, Stock)]
    found: dict[str, list[list[float]]] = {kind.name: [] for kind in kinds}
    with TaskListener() as listener:
        for _ in plan.rounds("e: latency"):
            for kind in kinds:
                with kind(listener) as system:
                    system.task.show(plan.still_page)
                    found[kind.name].append(sorted(_latencies_ms(system, plan.window_s)))
    lines = []
    ours = found["worker"]
    for kind in kinds[1:]:
        base = found[kind.name]
        lines += [
            Line(
                key="e",
                what=f"a change → a viewer has it, {name}",
                against=kind.name,
                unit="ms",
                ours=[_quantile(each, share) for each in ours],
                base=[_quantile(each, share) for each in base],
                limit=1.0 if (kind, name) == (Xvnc, "p95") else None,
            )
            for name, share in (("p50", 0.5), ("p95", 0.95))
        ]
    lines.append(
        Line(
            key="e",
            what="the same, the slowest from the first second on",
            against="",
            unit="ms",
            ours=[each[-1] for each in ours],
            compare="value",
            limit=150,
        )
    )
    return lines


def _latencies_ms(system: System, window_s: float) -> list[float]:
    drawn = []
    name, authority = system.display()
    with (
        Canvas(name, authority, x=800, y=600, width=CANVAS_PX, height=CANVAS_PX) as canvas,
        Viewers([system.url()], spot=SPOT) as viewers,
    ):
        until = time.monotonic() + window_s
        number = 0
        while time.monotonic() < until:
            number += 1
            drawn.append(time.monotonic())
            canvas.fill(_colour(number))
            time.sleep(random.uniform(*DRAW_EVERY_S))  # noqa: S311
        time.sleep(LAST_UPDATES_S)
        seen = [(moment, _number(colour)) for moment, colour in viewers.ask("seen")]
    return [_delay_ms(at, number, seen) for number, at in enumerate(drawn, start=1)]


def _delay_ms(at: float, number: int, seen: list[tuple[float, int]]) -> float:
    later = [moment for moment, shown in seen if shown >= number and moment > at]
    return min(1000 * (later[0] - at), _NEVER_MS) if later else _NEVER_MS


def _colour(number: int) -> tuple[int, int, int]:
    step = 256 // _STEPS
    return number % _STEPS * step + 8, number // _STEPS % _STEPS * step + 8, 8


def _number(colour: list[int]) -> int:
    step = 256 // _STEPS
    return colour[0] // step + colour[1] // step * _STEPS


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
