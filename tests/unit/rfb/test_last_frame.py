"""When the stream's end may be told: the last frame has been sent."""

from __future__ import annotations

import pytest

from worker.rfb.last_frame import LOOKS, MOVING_S, QUIET_S, STARVED_S, LastFrame

NOW = 1.0
STEP_S = QUIET_S / 2


@pytest.fixture
def last_frame():
    """Since now, and x11vnc may be asked."""
    return LastFrame(NOW, ask=True)


def test_silence_proves_nothing(last_frame):
    """An x11vnc that has not looked yet is waited for, though not for ever."""
    assert last_frame.asks
    assert not last_frame.is_out(NOW + 2 * QUIET_S)
    assert not last_frame.is_out(NOW + MOVING_S)
    assert last_frame.is_out(NOW + STARVED_S + STEP_S)


def test_quiet_after_it_has_looked(last_frame):
    """It has looked, and says no more."""
    late = NOW + MOVING_S + STEP_S
    for _ in range(LOOKS):
        assert last_frame.asks
        last_frame.heard(late)
    assert not last_frame.asks
    assert not last_frame.is_out(late)
    assert last_frame.is_out(late + 2 * QUIET_S)


def test_screen_that_moves_on(last_frame):
    """A screen that never comes to rest is not waited for."""
    moment = NOW
    while not last_frame.is_out(moment):
        moment += STEP_S
        last_frame.heard(moment)
    assert MOVING_S < moment - NOW < MOVING_S + (LOOKS + 2) * STEP_S


def test_viewer_that_asked_for_nothing():
    """Of a viewer that wants no updates, x11vnc is not asked."""
    last_frame = LastFrame(NOW, ask=False)
    assert not last_frame.asks
    assert last_frame.is_out(NOW + 2 * QUIET_S)
