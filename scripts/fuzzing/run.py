"""The run: many connections that attack, one viewer that must be served all along."""

from __future__ import annotations

import contextlib
import itertools
import random
import select
import socket
import statistics
import struct
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rfb_client import Viewer

from fuzzing import cases
from fuzzing.cases import PLACEHOLDERS, Case
from fuzzing.target_process import Size, Target
from worker.stream.tokens import Role

PROBE_S: Final = 10.0
GROWTH_MAX_BYTES: Final = 16 * 2**20
_WARM_UP_PART: Final = 0.25
_WARM_UP_MAX_S: Final = 30.0
_SUSPECTS: Final = 300
_LOOK_S: Final = 0.25
_NOTICE_S: Final = 0.05
_RECEIVE_BYTES: Final = 65536
_CONNECT_S: Final = 5.0
_SEND_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does."""

    seconds: float
    seed: int
    jobs: int
    corpus: Path


class _Attack:
    """Threads that attack a target until told to stop; they can pause."""

    def __init__(self, target: Target, plan: Plan, seeds: list[Case]) -> None:
        self.sent = 0
        self.kept = 0
        self.suspects: deque[Case] = deque(maxlen=_SUSPECTS)
        self._target, self._plan, self._pool = target, plan, seeds
        self._going, self._over = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(job,), daemon=True)
            for job in range(plan.jobs)
        ]
        for thread in self._threads:
            thread.start()

    def go(self, seconds: float) -> str:
        """Attack for so long, or until something is wrong; returns what is."""
        deadline = time.monotonic() + seconds
        self._going.set()
        wrong = ""
        while not wrong and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            wrong = self._target.wrong()
        self._going.clear()
        return wrong

    def end(self) -> None:
        """Stop for good."""
        self._over.set()
        self._going.set()
        for thread in self._threads:
            thread.join(_SEND_S * 2)

    def _work(self, job: int) -> None:
        chance = random.Random(f"{self._plan.seed}/{job}")  # noqa: S311 - it must be repeatable
        while self._going.wait() and not self._over.is_set():
            with self._lock:
                case = cases.mutated(chance.choice(self._pool), self._pool, chance)
                self.suspects.append(case)
                self.sent += 1
            before = self._target.lines_reached
            deliver(case, self._target)
            if self._target.lines_reached > before:
                with self._lock:
                    self._pool.append(case)
                    self.kept += 1


class _Probe(threading.Thread):
    """A good viewer that comes, sees a frame, and leaves, again and again."""

    def __init__(self, target: Target) -> None:
        super().__init__(daemon=True)
        self.wrong = ""
        self.seconds: list[float] = []
        self._target = target
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.1):
            began = time.monotonic()
            try:
                with Viewer.connect(self._target.url(), timeout_s=PROBE_S) as viewer:
                    viewer.request_update(incremental=False)
                    viewer.read_update(PROBE_S)
            except Exception as error:
                self.wrong = f"a good viewer was not served: {type(error).__name__}: {error}"
                return
            self.seconds.append(time.monotonic() - began)

    def end(self) -> None:
        """Stop."""
        self._over.set()
        self.join(2 * PROBE_S)


def run(plan: Plan) -> int:
    """Attack; returns the exit code, and keeps what did harm in the corpus."""
    seeds = [cases.read(path) for path in sorted(plan.corpus.glob("*.bin"))]
    with Target() as target:
        for case in seeds:
            deliver(case, target)
        wrong = target.wrong()
        attack, probe = _Attack(target, plan, list(seeds)), _Probe(target)
        warm_up_s = min(plan.seconds * _WARM_UP_PART, _WARM_UP_MAX_S)
        wrong = wrong or attack.go(warm_up_s)
        before = target.settled() if not wrong else None
        wrong = wrong or attack.go(plan.seconds - warm_up_s)
        attack.end()
        probe.end()
        after = target.settled(before) if not wrong else None
        wrong = wrong or probe.wrong or (_growth(before, after) if before and after else "")
        _report(target, attack, probe, before, after)
    if wrong:
        print(f"fuzz: FOUND: {wrong}")
        _keep(list(attack.suspects), plan)
        return 1
    print("fuzz: nothing found")
    return 0


def replay(case: Case) -> int:
    """Deliver one case to a fresh server."""
    wrong = _alone(case)
    print(f"fuzz: FOUND: {wrong}" if wrong else "fuzz: nothing found")
    return 1 if wrong else 0


def _alone(case: Case) -> str:
    with Target() as target:
        deliver(case, target)
        target.settled()
        probe = _Probe(target)
        while not probe.seconds and not probe.wrong:
            time.sleep(_LOOK_S)
        probe.end()
        return target.wrong() or probe.wrong


def _guilty(suspects: list[Case]) -> list[Case]:
    """Those that do harm when they come one after the other."""
    found, target = [], Target()
    for case in suspects:
        deliver(case, target)
        time.sleep(_NOTICE_S)
        if target.wrong():
            found.append(case)
            target.__exit__()
            target = Target()
    target.__exit__()
    return found


def _keep(suspects: list[Case], plan: Plan) -> None:
    """Write those of the last cases into the corpus that do harm alone, else all of them apart."""
    guilty = _guilty(suspects)
    folder = plan.corpus if guilty else Path(tempfile.mkdtemp(prefix="fuzz-suspects-"))
    for case in guilty or suspects:
        path = cases.write(case, folder, "found")
        if guilty:
            print(f"fuzz: kept {path} (seed {plan.seed}); try: scripts/fuzz --replay {path}")
    if not guilty:
        print(f"fuzz: no case does it alone; the last {len(suspects)} are in {folder}")


def _growth(before: Size, after: Size) -> str:
    if after.rss_bytes - before.rss_bytes > GROWTH_MAX_BYTES:
        return f"memory grew from {before} to {after}"
    if after.threads > before.threads or after.descriptors > before.descriptors:
        return f"something is left: {before} became {after}"
    return ""


def _report(
    target: Target, attack: _Attack, probe: _Probe, before: Size | None, after: Size | None
) -> None:
    print(f"fuzz: {attack.sent} cases, {attack.kept} of them kept for the new lines they reached;")
    print(f"fuzz: {target.lines_reached} lines of worker.stream were reached")
    print(f"fuzz: refusals {dict(sorted(target.refusals.items()))}")
    print(f"fuzz: closes {dict(sorted(target.closes.items()))}")
    if len(probe.seconds) > 1:
        p95 = statistics.quantiles(probe.seconds, n=20)[-1]
        worst = max(probe.seconds)
        print(f"fuzz: a good viewer was served {len(probe.seconds)} times, ", end="")
        print(f"in {p95:.3f} s (p95), {worst:.3f} s at worst")
    print(f"fuzz: after the warm-up: {before}")
    print(f"fuzz: at the end:        {after}")


def deliver(case: Case, target: Target) -> None:
    """Send a case as its delivery says: cut, with or without reading, and one of four ends."""
    chance = random.Random(case.delivery)  # noqa: S311
    data = case.data
    for placeholder, role in zip(PLACEHOLDERS, (Role.VIEW, Role.CONTROL), strict=True):
        data = data.replace(placeholder, target.token(role).encode())
    cuts = sorted(chance.randint(0, len(data)) for _ in range(chance.choice((0, 0, 1, 2, 8))))
    bounds = [0, *cuts, len(data)]
    with contextlib.suppress(OSError):
        address = ("127.0.0.1", target.port)
        with socket.create_connection(address, timeout=_CONNECT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(_SEND_S)
            for start, end in itertools.pairwise(bounds):
                connection.sendall(data[start:end])
                if chance.random() < 0.7:  # noqa: PLR2004
                    _read(connection, chance.choice((0.0, 0.005, 0.02)))
            _end(connection, chance)


def _end(connection: socket.socket, chance: random.Random) -> None:
    match chance.choice(("close", "reset", "half", "read")):
        case "reset":
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        case "half":
            connection.shutdown(socket.SHUT_WR)
            _read(connection, 0.2)
        case "read":
            _read(connection, 0.05)


def _read(connection: socket.socket, seconds: float) -> None:
    """Read what comes within a time, or to the end."""
    deadline = time.monotonic() + seconds
    while True:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([connection], [], [], left)[0]:
            return
        if not connection.recv(_RECEIVE_BYTES):
            return
