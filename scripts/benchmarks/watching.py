"""Lines d, e, f, g: how soon and how smoothly a viewer sees what happens."""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING

import Xlib.ext
from x_client import Canvas

from benchmarks import processes
from benchmarks.audience import Audience
from benchmarks.chains import Stock, Worker, Xvnc, missing
from benchmarks.line import Line
from benchmarks.stage import ANIMATION, Stage
from benchmarks.starting import start_bare

if TYPE_CHECKING:
    from benchmarks.chains import Chain
    from benchmarks.plan import Plan
    from benchmarks.stage import Puppet

SPOT = (820, 620)
CANVAS_PX = 64
DRAW_EVERY_S = (0.06, 0.14)
LAST_UPDATES_S = 0.5
_STEPS = 16  # each part of a colour has so many: far enough apart for JPEG
_NEVER_MS = 6000.0


# With Xvnc's event numbers python-xlib stumbles over XFIXES; drawing needs no extension at all.
Xlib.ext.__extensions__.clear()


def peers(plan: Plan, key: str, *kinds: type[Stock | Xvnc]) -> list[type[Stock | Xvnc]]:
    """Those of the peers that are installed here."""
    found: list[type[Stock | Xvnc]] = []
    for kind in kinds:
        if absent := missing(kind):
            plan.skip(f"{key} against {kind.name}: not installed: {absent}")
        else:
            found.append(kind)
    return found


def d(plan: Plan) -> list[Line]:
    """TCP connect until the first whole picture of a real page is decoded."""
    kinds: list[type[Chain]] = [Worker, *peers(plan, "d", Stock, Xvnc)]
    found: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(Stage())
        chains: list[Chain] = [stack.enter_context(kind(stage)) for kind in kinds]
        for chain in chains:
            chain.puppet.show(plan.still_page)
        for _ in plan.rounds("d: connecting", at_least=3):
            for chain in chains:
                with Audience([chain.url()]) as audience:
                    found[chain.name].append(audience.first_frames_s[0])
        for chain in chains:
            chain.puppet.finish()
    return [
        Line(
            key="d",
            what="a viewer's connect → first whole picture",
            against=kind.name,
            unit="ms",
            ours=[1000 * value for value in found["worker"]],
            base=[1000 * value for value in found[kind.name]],
            limit={"stock": 0.33, "Xvnc": 1.0}[kind.name],
        )
        for kind in kinds[1:]
    ]


def e(plan: Plan) -> list[Line]:
    """A change on the display until a viewer has it, from its connection on."""
    kinds: list[type[Chain]] = [Worker, *peers(plan, "e", Xvnc, Stock)]
    found: dict[str, list[list[float]]] = {kind.name: [] for kind in kinds}
    with Stage() as stage:
        for _ in plan.rounds("e: latency"):
            for kind in kinds:
                with kind(stage) as chain:
                    chain.puppet.show(plan.still_page)
                    found[kind.name].append(sorted(_latencies_ms(chain, plan.window_s)))
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


def _latencies_ms(chain: Chain, window_s: float) -> list[float]:
    drawn = []
    name, authority = chain.display()
    with (
        Canvas(name, authority, x=800, y=600, width=CANVAS_PX, height=CANVAS_PX) as canvas,
        Audience([chain.url()], spot=SPOT) as audience,
    ):
        until = time.monotonic() + window_s
        number = 0
        while time.monotonic() < until:
            number += 1
            drawn.append(time.monotonic())
            canvas.fill(_colour(number))
            time.sleep(random.uniform(*DRAW_EVERY_S))  # noqa: S311
        time.sleep(LAST_UPDATES_S)
        seen = [(moment, _number(colour)) for moment, colour in audience.ask("seen")]
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


def f(plan: Plan) -> list[Line]:
    """Updates a second of a full-screen animation."""
    kinds = peers(plan, "f", Xvnc)
    if not kinds:
        return []
    found: dict[str, list[float]] = {Worker.name: [], Xvnc.name: []}
    with Stage() as stage:
        for _ in plan.rounds("f: updates a second"):
            for kind in (Worker, Xvnc):
                with kind(stage) as chain:
                    chain.puppet.show(ANIMATION)
                    with Audience([chain.url()], skip_pixels=True) as audience:
                        found[kind.name].append(_updates_per_s(audience, plan.window_s))
    return [
        Line(
            key="f",
            what="updates a second of a full-screen animation",
            against="Xvnc",
            unit="/s",
            ours=found["worker"],
            base=found["Xvnc"],
            limit=0.8,
            at_least=True,
        )
    ]


def _updates_per_s(audience: Audience, window_s: float) -> float:
    before_s, before = audience.ask("count")
    time.sleep(window_s)
    after_s, after = audience.ask("count")
    return float((after[0] - before[0]) / (after_s - before_s))


def g(plan: Plan) -> list[Line]:
    """The page's own frame rate under viewers, against a page that nobody streams."""
    found: dict[int, list[float]] = {count: [] for count in plan.viewer_counts}
    base = []
    with Stage() as stage:
        for _ in plan.rounds("g: the page's frames"):
            with Worker(stage) as worker:
                worker.puppet.show(ANIMATION)
                for count in plan.viewer_counts:
                    urls = [worker.url() for _ in range(count)]
                    with Audience(urls, skip_pixels=True) if urls else contextlib.nullcontext():
                        found[count].append(_frames_per_s(worker.puppet, plan.window_s))
            base.append(_bare_frames_per_s(stage, plan.window_s))
    return [
        Line(
            key="g",
            what=f"the page's own frames a second, {count} viewer{'s' if count != 1 else ''}",
            against="no stream",
            unit="/s",
            ours=rates,
            base=base,
            limit=0.9 if count == 1 else None,
            at_least=True,
        )
        for count, rates in found.items()
    ]


def _frames_per_s(puppet: Puppet, window_s: float) -> float:
    ask = "[performance.now(), window.frames_drawn]"
    before = puppet.evaluate(ask)
    time.sleep(window_s)
    after = puppet.evaluate(ask)
    return float(1000 * (after[1] - before[1]) / (after[0] - before[0]))


def _bare_frames_per_s(stage: Stage, window_s: float) -> float:
    process = start_bare(stage)
    try:
        puppet = stage.puppet()
        puppet.show(ANIMATION)
        return _frames_per_s(puppet, window_s)
    finally:
        processes.stop(process)


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
