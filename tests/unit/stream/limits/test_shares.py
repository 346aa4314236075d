"""How x11vnc's CPU time is shared among its viewers."""

from __future__ import annotations

import pytest

from worker.stream.limits.shares import ACTIVE_S, BURST_S, SURPLUS, Shares


class X11vnc:
    """An x11vnc that serves viewers one after the other; its CPU clock is the time it served."""

    def __init__(self, costs_s: list[float]) -> None:
        self.now = self.cpu_s = 50.0
        self.costs_s = costs_s
        self.served = [0] * len(costs_s)
        shares = Shares(lambda: self.now)
        self.shares = [shares.join(lambda: self.cpu_s) for _ in costs_s]

    def run(self, seconds: float) -> list[int]:
        """Serve every viewer that may request, for so long; return how often each was served."""
        before, end = list(self.served), self.now + seconds
        while self.now < end:
            self.now += 0.005
            for index, share in enumerate(self.shares):
                if not share.overdrawn_s():
                    self.cpu_s += self.costs_s[index]
                    self.now += self.costs_s[index]
                    self.served[index] += 1
                    share.served()
        return [now - then for now, then in zip(self.served, before, strict=True)]


@pytest.mark.parametrize("cost_s", [0.05, 0.13, 0.5])
def test_expensive_viewer_gets_its_share_only(cost_s):
    """The others get at least half as many updates as without it."""
    alone = X11vnc([0.02] * 4)
    alone.run(5)
    beside = X11vnc([*[0.02] * 4, cost_s])
    beside.run(5)
    *others, _ = beside.run(20)
    assert min(others) >= 0.5 * max(alone.run(20))
    assert beside.served[-1] > 0


@pytest.mark.parametrize("viewers", [1, 2, 5, 16])
def test_equal_viewers_are_not_held_back(viewers):
    """X11vnc is busy all the time."""
    x11vnc = X11vnc([0.02] * viewers)
    began_cpu_s, began = x11vnc.cpu_s, x11vnc.now
    x11vnc.run(20)
    assert (x11vnc.cpu_s - began_cpu_s) / (x11vnc.now - began) > 0.75


def test_waiting_for_changes_costs_nothing():
    """X11vnc polls the screen meanwhile; one arrival is charged with a burst at most."""
    x11vnc = X11vnc([0.02, 0.02])
    share = x11vnc.shares[0]
    share.served()
    for _ in range(10):
        x11vnc.now += 60
        x11vnc.cpu_s += 3
        share.overdrawn_s()
        share.served()
        assert share.overdrawn_s() == 0


def test_overdrawn_account_is_refilled_with_an_equal_share():
    x11vnc = X11vnc([0, 0])
    share = x11vnc.shares[0]
    for _ in range(3):
        x11vnc.cpu_s += BURST_S
        share.served()
    assert share.overdrawn_s() == pytest.approx(2 * BURST_S / (SURPLUS / 2))
    x11vnc.shares[1].leave()
    assert share.overdrawn_s() == pytest.approx(2 * BURST_S)


def test_viewer_that_was_not_served_lately_needs_no_share():
    x11vnc = X11vnc([0, 0])
    share = x11vnc.shares[0]
    x11vnc.now += ACTIVE_S
    for _ in range(3):
        x11vnc.cpu_s += BURST_S
        share.served()
    assert share.overdrawn_s() == pytest.approx(2 * BURST_S)


def test_x11vnc_that_was_restarted_begins_at_0():
    x11vnc = X11vnc([0, 0])
    share = x11vnc.shares[0]
    x11vnc.cpu_s = 0.0
    share.served()
    assert share.overdrawn_s() == 0
