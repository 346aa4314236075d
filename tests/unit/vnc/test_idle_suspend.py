"""When x11vnc sleeps; a child that does nothing stands for it."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from worker_run import eventually, is_stopped

from worker.vnc import idle_suspend
from worker.vnc.idle_suspend import IdleSuspend


@pytest.fixture
def child():
    """A process that waits."""
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        yield process
        process.kill()


def test_it_is_awake_at_first(child):
    """Nothing is due before it has settled."""
    dozing = IdleSuspend()
    dozing.use(child.pid)
    assert dozing.tick() > idle_suspend.MOMENT_S
    assert not is_stopped(child.pid)


def test_it_sleeps_and_gets_its_moments(child, monkeypatch):
    """Stopped, woken for a moment, stopped again; awake when somebody comes."""
    monkeypatch.setattr(idle_suspend, "SETTLE_S", 0)
    monkeypatch.setattr(idle_suspend, "SLEEP_S", 0)
    dozing = IdleSuspend()
    dozing.use(child.pid)
    for _ in range(2):
        eventually(lambda: dozing.tick() == 0)  # its sleep is over at once
        eventually(lambda: is_stopped(child.pid))
        assert 0 < dozing.tick() < 2 * idle_suspend.MOMENT_S
        eventually(lambda: not is_stopped(child.pid))
    eventually(lambda: dozing.tick() == 0)
    eventually(lambda: is_stopped(child.pid))
    dozing.wake()
    eventually(lambda: not is_stopped(child.pid))


def test_it_sleeps_while_it_sees_nothing(child):
    """Stopped at once, and then awake for longer than a moment."""
    dozing = IdleSuspend()
    dozing.use(child.pid)
    dozing.skip_blind()
    dozing.tick()
    eventually(lambda: is_stopped(child.pid))
    eventually(lambda: dozing.tick() > idle_suspend.BLIND_S)
    eventually(lambda: not is_stopped(child.pid))


def test_its_blind_time_may_be_over_already(child, monkeypatch):
    """It is not stopped when it could watch by now."""
    monkeypatch.setattr(idle_suspend, "BLIND_S", 0)
    dozing = IdleSuspend()
    dozing.use(child.pid)
    dozing.skip_blind()
    assert dozing.tick() > idle_suspend.MOMENT_S
    assert not is_stopped(child.pid)


def test_who_comes_while_it_sees_nothing_wakes_it(child):
    """And it is not stopped again before it has settled."""
    dozing = IdleSuspend()
    dozing.use(child.pid)
    dozing.skip_blind()
    assert dozing.tick() > idle_suspend.MOMENT_S
    eventually(lambda: is_stopped(child.pid))
    dozing.wake()
    assert dozing.tick() > idle_suspend.MOMENT_S
    eventually(lambda: not is_stopped(child.pid))


def test_a_viewer_waits_for_the_end_of_it_only(child, monkeypatch):
    """At first it is let through, which begins it anew; then it waits for its end."""
    dozing = IdleSuspend()
    dozing.use(child.pid)
    assert dozing.wait_s() == 0  # nobody is its first client yet
    monkeypatch.setattr(idle_suspend, "WAIT_MAX_S", 0)
    dozing.skip_blind()
    assert dozing.wait_s() == 0
    monkeypatch.setattr(idle_suspend, "WAIT_MAX_S", 60)
    assert 0 < dozing.wait_s() < 2 * idle_suspend.BLIND_S
    eventually(lambda: dozing.wait_s() == 0)
    assert dozing.wait_s() == 0


def test_a_stopped_one_is_woken_when_it_is_taken_over(child):
    """Its forerunner may have been killed."""
    os.kill(child.pid, signal.SIGSTOP)
    eventually(lambda: is_stopped(child.pid))
    IdleSuspend().use(child.pid)
    eventually(lambda: not is_stopped(child.pid))


def test_one_that_is_gone_costs_nothing():
    """No process: nothing to do, and nothing breaks."""
    dozing = IdleSuspend()
    assert dozing.tick() is None
    dozing.use(0)
    dozing.skip_blind()
    dozing.wake()
    assert dozing.tick() is None
