"""One run: undisturbed, under attack, and the comparison of both."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psutil
from worker_run import PROGRAMS
from worker_serve import WorkerServe

from attacking import attackers
from attacking.victim import Measurements, Victim

RATIO_MAX: Final = 3.0
GROWTH_MAX_BYTES: Final = 64 * 2**20
_UNDISTURBED_PART: Final = 0.5
_UNDISTURBED_MAX_S: Final = 120.0
_ENDPOINTS: Final = PROGRAMS / "hostile_endpoints"
_SAMPLE_S: Final = 1.0
_RECOVERY_S: Final = 60.0
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The parameters of a run; `only` names attackers, none means all."""

    seconds: float
    only: tuple[str, ...]


def run(plan: Plan) -> int:
    """Attack and compare; return the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="attack-", dir="/tmp"))  # short: sockets live below it
    api = WorkerServe(folder, _environment())
    api.start()
    try:
        return _attacked(api, plan)
    finally:
        api.end()


def _environment() -> dict[str, str]:
    return {
        "WORKER_ENDPOINTS_DIR": str(_ENDPOINTS),
        "WORKER_MAX_RUNNING": "4",
        "WORKER_ACCOUNT_MAX_RUNNING": "2",
        "WORKER_ACCOUNT_MAX_QUEUED": "20",
        "WORKER_CALLBACK_PRIVATE": "true",
        "WORKER_TIMEOUT_S": "15",
    }


def _attacked(api: WorkerServe, plan: Plan) -> int:
    victim = Victim(api)
    victim.measure(5)  # the first requests load what later ones find loaded
    before = victim.measure(min(plan.seconds * _UNDISTURBED_PART, _UNDISTURBED_MAX_S))
    process = psutil.Process(api.process.pid)
    size = process.memory_info().rss
    with attackers.attack(api, plan.only) as reports:
        largest = _Largest(process)
        during = victim.measure(plan.seconds, each_second=largest.sample)
    victim.close()
    problems = [*_compare(before, during), *_growth(size, largest.bytes)]
    problems += [f"{name} did nothing" for name, done in reports.items() if not done]
    problems += _alive(api) or _leaks(api)
    _print(before, during, reports, size, largest.bytes)
    for problem in problems:
        print(f"attack: FOUND: {problem}")
    if not problems:
        print("attack: nothing found")
    return 1 if problems else 0


class _Largest:
    """The largest resident size of a process so far, in bytes."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.bytes = 0

    def sample(self) -> None:
        self.bytes = max(self.bytes, self._process.memory_info().rss)


def _compare(before: Measurements, during: Measurements) -> list[str]:
    problems = [f"{kind}: {error}" for kind, error in during.errors[:20]]
    for kind in before.kinds:
        ratio = during.p99(kind) / before.p99(kind)
        if not during.count(kind):
            problems.append(f"{kind}: none succeeded")
        elif ratio > RATIO_MAX:
            problems.append(f"{kind}: the 99th percentile is {ratio:.1f} times the undisturbed one")
    return problems


def _growth(before: int, after: int) -> list[str]:
    if after - before > GROWTH_MAX_BYTES:
        return [f"the API grew from {before / _MIB:.0f} to {after / _MIB:.0f} MiB"]
    return []


def _alive(api: WorkerServe) -> list[str]:
    """Whether the API becomes ready again when the attack is over."""
    deadline = time.monotonic() + _RECOVERY_S
    state = ""
    while time.monotonic() < deadline:
        try:
            answer = api.client.get(f"{api.url}/readyz")
        except httpx.HTTPError as error:
            state = type(error).__name__
        else:
            if answer.is_success:
                return []
            state = f"{answer.status_code} {answer.text}"
        time.sleep(_SAMPLE_S)
    return [f"/readyz answers {state} a minute after the attack"]


def _leaks(api: WorkerServe) -> list[str]:
    """Files of others that a hostile task could read."""
    headers = {"x-api-key": api.key(attackers.ACCOUNT)}
    page = api.get("/tasks?limit=100", headers=headers).json()
    ended = [task["task_id"] for task in page["tasks"] if task["status"] == "success"]
    found = [api.get(f"/tasks/{task}", headers=headers).json() for task in ended]
    read = [task["output"] for task in found if task["input_parameters"]["kind"] == "reads_state"]
    return [f"a task has read {', '.join(files[:5])}" for files in read if files]


def _print(
    before: Measurements,
    during: Measurements,
    reports: dict[str, str],
    size: int,
    largest: int,
) -> None:
    print(
        f"{os.cpu_count()} cores; the API had {size / _MIB:.0f} MiB, at most {largest / _MIB:.0f}"
    )
    print(f"{'':10} {'undisturbed':>28} {'under attack':>28}")
    for kind in before.kinds:
        print(f"{kind:10} {before.line(kind):>28} {during.line(kind):>28}")
    for name, done in reports.items():
        print(f"{name}: {done}")
