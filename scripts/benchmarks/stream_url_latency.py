"""Line k: latency of the API's stream URLs under load (`api_load` in a process of its own)."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.table_line import Line

if TYPE_CHECKING:
    from benchmarks.plan import Plan

_TIMEOUT_S = 120
_P99 = re.compile(r"^GET .*: 0 errors, .* p99 ([0-9.]+) ms", re.MULTILINE)


def k(plan: Plan) -> list[Line]:
    """The 99th percentile of GET …/stream."""
    if importlib.util.find_spec("fastapi") is None:
        plan.skip("k: the API is not installed: run `scripts/bootstrap api`")
        plan.next_part()
        return []
    found: list[float] = []
    for _ in plan.rounds("k: the API"):
        output = subprocess.run(
            processes.python("-m", "benchmarks.api_load"),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        ).stdout
        match = _P99.search(output)
        if match is None:
            raise RuntimeError(f"the API returned errors: {output}")
        found.append(float(match[1]))
    return [
        Line(
            key="k",
            what="2,000 GET …/stream, 50 at a time: p99",
            against="",
            unit="ms",
            ours=found,
            compare="value",
            limit=50,
        )
    ]
