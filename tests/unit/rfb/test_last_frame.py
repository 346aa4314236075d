"""When the last frame counts as received, so that the stream can be closed."""

from __future__ import annotations

import pytest

from worker.rfb.last_frame import ANSWERS_S, MOVING_S, QUIET_S, REQUESTS, LastFrame

NOW = 1.0
STEP_S = QUIET_S / 2


@pytest.fixture
def last_frame():
    """Since NOW, of a server that may be sent requests."""
    return LastFrame(NOW, request=True)


def test_silence_before_the_answers_is_not_the_end(last_frame):
    assert last_frame.needs_request
    assert not last_frame.is_complete(NOW + 2 * QUIET_S)
    assert not last_frame.is_complete(NOW + MOVING_S)


def test_wait_for_the_answers_is_bounded(last_frame):
    assert last_frame.is_complete(NOW + ANSWERS_S + STEP_S)


def test_silence_after_the_answers_is_the_end(last_frame):
    late = NOW + MOVING_S + STEP_S
    for _ in range(REQUESTS):
        assert last_frame.needs_request
        last_frame.server_sent(late)
    assert not last_frame.needs_request
    assert not last_frame.is_complete(late)
    assert last_frame.is_complete(late + 2 * QUIET_S)


def test_wait_for_a_moving_screen_is_bounded(last_frame):
    moment = NOW
    while not last_frame.is_complete(moment):
        moment += STEP_S
        last_frame.server_sent(moment)
    assert MOVING_S < moment - NOW < MOVING_S + (REQUESTS + 2) * STEP_S


def test_without_requests_silence_is_the_end():
    last_frame = LastFrame(NOW, request=False)
    assert not last_frame.needs_request
    assert last_frame.is_complete(NOW + 2 * QUIET_S)
