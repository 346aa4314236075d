"""Who reads a little is not reading; who reads slowly is."""

from __future__ import annotations

import pytest

from worker.stream.policy import Pace

WINDOW_S, LEAST = 10.0, 1000


def dropped_at(taken_at, *, waiting=lambda _: True, until=60):
    """The second at which a viewer that has taken so much at each moment is too slow."""
    pace = Pace(window_s=WINDOW_S, least_bytes=LEAST)
    for tick in range(until * 4):
        now = tick / 4
        if pace.too_slow(now, waiting=waiting(now), taken_bytes=int(taken_at(now))):
            return now
    return None


@pytest.mark.parametrize("rate", [0, 1, 50])
def test_a_trickle_is_not_reading(rate):
    """Nothing, a byte a second, or half of what is asked for: gone when the window is over."""
    assert dropped_at(lambda now: rate * now) == WINDOW_S


def test_slow_but_reading():
    """Whoever takes twice the least stays."""
    assert dropped_at(lambda now: 200 * now) is None


def test_stops_later():
    """One that stops is gone 10 s later, give or take a sample, whatever it took before."""
    stopped = dropped_at(lambda now: 5000 * min(now, 7.5))
    assert 7.5 + WINDOW_S - 1 <= stopped <= 7.5 + WINDOW_S + 1


def test_nothing_waits():
    """While nothing waits there is nothing to take."""
    assert dropped_at(lambda _: 0, waiting=lambda _: False) is None


def test_all_is_taken_now_and_then():
    """Whoever empties the queue starts afresh."""
    assert dropped_at(lambda _: 0, waiting=lambda now: now % 5 != 0) is None
