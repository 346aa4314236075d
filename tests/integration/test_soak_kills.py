"""One process of a run is killed at a random moment: its end is accurate, nothing is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
import urllib.error

import pytest
from rfb_client import Closed, Ended, Lost, Refused, Viewer
from viewers import busy_updater, idle, mouse_mover
from worker_run import COMMAND_LINES, PROGRAMS, eventually

TASKS = str(PROGRAMS / "tasks.py")
RUNS = 300
ORDINARY = 1  # runs that are part of every test run
LATEST_KILL_S = 3.0
LOST_CODE, RAISED_CODE, KILLED_CODE = 70, 1, 137
TASK_ENDED, DISPLAY_LOST, RESTARTING = 1000, 1011, 1012
NO_CLOSE = 1006
_POLL_S = 0.005

VICTIMS = [*COMMAND_LINES, "worker"]
IRREPLACEABLE = {"supervisord", "Xvfb"}
OF_THE_TASK = {"browser", "renderer", "driver"}


class Follower(threading.Thread):
    """A viewer that reconnects until the worker ends.

    Attributes:
        ends: how each of its connections ended.
        error: what failed; None if nothing did.
    """

    def __init__(self, worker, act):
        super().__init__(daemon=True)
        self.ends: list[Closed | Lost | Refused] = []
        self.error: Exception | None = None
        self._worker = worker
        self._act = act
        self.start()

    def run(self):
        """Run in the thread."""
        try:
            while self._worker.process.poll() is None:
                if not has_event(self._worker, "stream.ready"):
                    time.sleep(_POLL_S)
                    continue
                with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                    self._watch()
                time.sleep(_POLL_S)
        except Exception as error:
            self.error = error

    def _watch(self):
        try:
            with Viewer.connect(self._worker.stream_url()) as viewer:
                with contextlib.suppress(Ended):
                    self._act(viewer, lambda: None)
                self.ends.append(viewer.wait_closed(30))
        except (Lost, Refused) as end:
            self.ends.append(end)
        except Ended as ended:
            self.ends.append(ended.closed)

    def codes(self):
        """The close code of each connection that was closed."""
        return [end.code for end in self.ends if isinstance(end, Closed)]


def has_event(worker, name):
    return any(event["event"] == name for event in worker.events)


def victim_pid(worker, victim):
    """The process id of the victim once it exists; None if the run ends before."""
    while worker.process.poll() is None:
        if victim == "worker":
            return worker.process.pid
        if pids := worker.descendants(COMMAND_LINES[victim]):
            return min(pids)
        time.sleep(_POLL_S)
    return None


def kill(worker, victim):
    """Send SIGKILL to the victim; whether it still existed."""
    in_time = worker.process.poll() is None and not has_event(worker, "task.finished")
    pid = victim_pid(worker, victim)
    if pid is None:
        assert not in_time, f"no process of {victim} was found"
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def allowed_codes(worker, victim):
    """The exit codes that are accurate after a victim was killed."""
    started = has_event(worker, "task.started")
    if victim in IRREPLACEABLE:
        return {0, LOST_CODE}
    if victim == "task process":
        return {0, KILLED_CODE} if started else {LOST_CODE}
    if victim in OF_THE_TASK:
        return {0, RAISED_CODE} if started else {LOST_CODE}
    return {0}


def assert_end(worker, victim, *, killed):
    """Check exit code, result and events against each other and against the victim."""
    code = worker.wait()
    if victim == "worker" and killed:
        assert code == -signal.SIGKILL
        return
    assert code in (allowed_codes(worker, victim) if killed else {0}), (
        worker.events,
        worker.stderr,
    )
    (finished,) = (event for event in worker.events if event["event"] == "worker.finished")
    result = worker.result
    assert (finished["exit_code"], result["exit_code"]) == (code, code)
    assert finished["status"] == result["status"] == ("failed" if code else "success")
    assert not finished.get("left")
    if code == 0:
        assert result["output"] == "worked"
    if code == LOST_CODE and victim in IRREPLACEABLE:
        assert result["error"]["type"] == "SessionLost", result["error"]


def assert_closes(worker, victim, followers):
    """Check how the viewers' connections ended."""
    for follower in followers:
        follower.join(40)
        assert follower.error is None, follower.error
        codes = follower.codes()
        if victim in ("worker", "stream server"):
            assert set(codes) <= {TASK_ENDED, DISPLAY_LOST, RESTARTING, NO_CLOSE}
            continue
        assert set(codes) <= {TASK_ENDED, DISPLAY_LOST, RESTARTING}
        assert not any(isinstance(end, Lost) for end in follower.ends), follower.ends
        if victim in IRREPLACEABLE:
            assert RESTARTING not in codes, (victim, follower.ends, worker.events)
        if codes and codes[-1] != RESTARTING:
            wanted = DISPLAY_LOST if worker.process.returncode == LOST_CODE else TASK_ENDED
            assert codes[-1] == wanted, (victim, follower.ends, worker.events)


@pytest.mark.parametrize(
    "seed",
    [pytest.param(n, marks=[pytest.mark.soak] if n >= ORDINARY else []) for n in range(RUNS)],
)
def test_killed_at_a_random_moment(run, ipc_namespace, seed):
    """The exit code and result are the task's own or the loss's; viewers get 1000, 1011 or 1012."""
    chance = random.Random(seed)  # noqa: S311 - chooses test inputs
    victim = VICTIMS[seed % len(VICTIMS)]
    worker = run(f"{TASKS}:works")
    followers = [Follower(worker, act) for act in (idle, mouse_mover, busy_updater)]
    time.sleep(chance.uniform(0, LATEST_KILL_S))
    killed = kill(worker, victim)
    assert_end(worker, victim, killed=killed)
    if victim == "worker" and killed:
        eventually(lambda: not ipc_namespace.processes(), timeout_s=20, what="its processes end")
        later = run(f"{TASKS}:plain", env={"TMPDIR": str(worker.tmpdir)})
        assert later.wait() == 0
    assert_closes(worker, victim, followers)
    assert not ipc_namespace.leftovers()
