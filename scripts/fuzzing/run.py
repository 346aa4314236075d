"""A fuzz run: attacks a stream server and adds cases that cause a defect to the corpus."""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fuzzing import case as cases
from fuzzing.attack import Attack, Probe
from fuzzing.delivery import deliver
from fuzzing.server_process import ServerProcess, Size

if TYPE_CHECKING:
    from fuzzing.case import Case

GROWTH_MAX_BYTES: Final = 16 * 2**20
DISPLAY_GROWTH_MAX_BYTES: Final = 64 * 2**20
_WARM_UP_PART: Final = 0.25
_WARM_UP_MAX_S: Final = 120.0  # until malloc has the memory of many threads
_CHECK_S: Final = 0.25
_NOTICE_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The parameters of a run; `jobs` is the number of attacking threads."""

    seconds: float
    seed: int
    jobs: int
    corpus: Path
    real_display: bool


def run(plan: Plan) -> int:
    """Attack; return the exit code. Cases that cause a defect are written to the corpus."""
    seeds = [cases.read(path) for path in sorted(plan.corpus.glob("*.bin"))]
    with ServerProcess(real_display=plan.real_display) as server:
        attack = Attack(server, list(seeds), seed=plan.seed, jobs=plan.jobs)
        attack.suspects.extend(seeds)
        probe = Probe(server)
        with ThreadPoolExecutor(plan.jobs) as pool:
            list(pool.map(lambda case: deliver(case, server), seeds))
        warm_up_s = min(plan.seconds * _WARM_UP_PART, _WARM_UP_MAX_S)
        defect, before = server.defect(), None
        if plan.seconds and not defect:
            defect = attack.go(warm_up_s)
            before = server.settled() if not defect else None
            defect = defect or attack.go(plan.seconds - warm_up_s)
        attack.end()
        probe.end()
        after = server.settled(before) if not defect else None
        defect = defect or server.defect()
        defect = defect or probe.defect or (_growth(before, after) if before and after else "")
        _report(server, attack, probe, before, after)
    if defect:
        print(f"fuzz: FOUND: {defect}")
        _keep(list(attack.suspects), plan)
        return 1
    print("fuzz: nothing found")
    return 0


def replay(case: Case, *, real_display: bool) -> int:
    """Deliver one case to a new server; return the exit code."""
    defect = _defect_of(case, real_display=real_display)
    print(f"fuzz: FOUND: {defect}" if defect else "fuzz: nothing found")
    return 1 if defect else 0


def _defect_of(case: Case, *, real_display: bool) -> str:
    with ServerProcess(real_display=real_display) as server:
        deliver(case, server)
        server.settled()
        probe = Probe(server)
        while not probe.durations_s and not probe.defect:
            time.sleep(_CHECK_S)
        probe.end()
        return server.defect() or probe.defect


def _guilty(suspects: list[Case], *, real_display: bool) -> list[Case]:
    """The suspects that cause a defect when they are delivered one after the other."""
    found, server = [], ServerProcess(real_display=real_display)
    for case in suspects:
        deliver(case, server)
        time.sleep(_NOTICE_S)
        if server.defect():
            found.append(case)
            server.__exit__()
            server = ServerProcess(real_display=real_display)
    server.__exit__()
    return found


def _keep(suspects: list[Case], plan: Plan) -> None:
    """Write the guilty cases to the corpus, or all suspects to a temporary folder if none is."""
    guilty = _guilty(suspects, real_display=plan.real_display)
    folder = plan.corpus if guilty else Path(tempfile.mkdtemp(prefix="fuzz-suspects-"))
    for case in guilty or suspects:
        path = cases.write(case, folder, "found")
        if guilty:
            display = "real" if plan.real_display else "fake"
            again = f"scripts/fuzz --display {display} --replay {path}"
            print(f"fuzz: kept {path} (seed {plan.seed}); try: {again}")
    if not guilty:
        print(f"fuzz: no single case causes it; the last {len(suspects)} are in {folder}")


def _growth(before: Size, after: Size) -> str:
    if after.rss_bytes - before.rss_bytes > GROWTH_MAX_BYTES:
        return f"memory grew from {before} to {after}"
    if after.display_bytes - before.display_bytes > DISPLAY_GROWTH_MAX_BYTES:
        return f"x11vnc's memory grew from {before} to {after}"
    if after.exceeds(before):
        return f"threads or descriptors leaked: {before} became {after}"
    return ""


def _report(
    server: ServerProcess, attack: Attack, probe: Probe, before: Size | None, after: Size | None
) -> None:
    if server.real_display is not None:
        print(f"fuzz: {attack.sent} cases, behind them a real x11vnc")
    else:
        print(f"fuzz: {attack.sent} cases, {attack.kept} kept because they reached new lines;")
        print(f"fuzz: {server.lines_reached} lines of worker.stream were reached")
    print(f"fuzz: refusals {dict(sorted(server.refusals.items()))}")
    print(f"fuzz: closes {dict(sorted(server.closes.items()))}")
    if len(probe.durations_s) > 1:
        p95 = statistics.quantiles(probe.durations_s, n=20)[-1]
        worst = max(probe.durations_s)
        print(f"fuzz: a well-behaved viewer was served {len(probe.durations_s)} times, ", end="")
        print(f"in {p95:.3f} s (p95), {worst:.3f} s at worst")
    print(f"fuzz: after the warm-up: {before}")
    print(f"fuzz: at the end:        {after}")
