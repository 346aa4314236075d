"""Threads that connect to the server under test: attackers, and one viewer that must be served."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from rfb_client import Viewer

from fuzzing import mutations, rfb_sessions
from fuzzing.delivery import SEND_TIMEOUT_S, deliver

if TYPE_CHECKING:
    from fuzzing.case import Case
    from fuzzing.server_process import ServerProcess

_PROBE_TIMEOUT_S: Final = 10.0
_PROBE_PAUSE_S: Final = 0.1
_SUSPECTS: Final = 300
_CHECK_S: Final = 0.25
_GENERATED_PART: Final = 0.7  # of the cases for a real x11vnc: few mutated bytes reach it


class Attack:
    """Threads that deliver mutated cases. A case that reaches new lines is mutated further.

    Attributes:
        sent: the number of cases delivered.
        kept: the number of cases that reached new lines.
        suspects: the most recent cases.
    """

    def __init__(self, server: ServerProcess, seeds: list[Case], *, seed: int, jobs: int) -> None:
        self.sent = 0
        self.kept = 0
        self.suspects: deque[Case] = deque(maxlen=_SUSPECTS)
        self._server, self._seed, self._pool = server, seed, seeds
        self._going, self._over = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(job,), daemon=True) for job in range(jobs)
        ]
        for thread in self._threads:
            thread.start()

    def go(self, seconds: float) -> str:
        """Attack for this time, or until there is a defect; return its description, or ""."""
        deadline = time.monotonic() + seconds
        self._going.set()
        defect = ""
        while not defect and time.monotonic() < deadline:
            time.sleep(_CHECK_S)
            defect = self._server.defect()
        self._going.clear()
        return defect

    def end(self) -> None:
        """Stop all threads."""
        self._over.set()
        self._going.set()
        for thread in self._threads:
            thread.join(SEND_TIMEOUT_S * 2)

    def _work(self, job: int) -> None:
        rng = random.Random(f"{self._seed}/{job}")  # noqa: S311 - repeatable
        while self._going.wait() and not self._over.is_set():
            with self._lock:
                case = self._next_case(rng)
                self.suspects.append(case)
                self.sent += 1
            before = self._server.lines_reached
            deliver(case, self._server)
            if self._server.lines_reached > before:
                with self._lock:
                    self._pool.append(case)
                    self.kept += 1

    def _next_case(self, rng: random.Random) -> Case:
        if self._server.real_display is not None and rng.random() < _GENERATED_PART:
            return rfb_sessions.generated(rng)
        return mutations.mutated(rng.choice(self._pool), self._pool, rng)


class Probe(threading.Thread):
    """A well-behaved viewer that repeatedly connects, reads one update and disconnects.

    Attributes:
        defect: why it was not served; empty if it always was.
        durations_s: of each connection.
    """

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(daemon=True)
        self.defect = ""
        self.durations_s: list[float] = []
        self._server = server
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(_PROBE_PAUSE_S):
            began = time.monotonic()
            try:
                with Viewer.connect(self._server.url(), timeout_s=_PROBE_TIMEOUT_S) as viewer:
                    viewer.request_update(incremental=False)
                    viewer.read_update(_PROBE_TIMEOUT_S)
            except Exception as error:
                self.defect = (
                    f"a well-behaved viewer was not served: {type(error).__name__}: {error}"
                )
                return
            self.durations_s.append(time.monotonic() - began)

    def end(self) -> None:
        """Stop after the current connection."""
        self._over.set()
        self.join(2 * _PROBE_TIMEOUT_S)
