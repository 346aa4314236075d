"""When x11vnc is suspended, with a clock that the tests advance."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.vnc.idle_suspend import (
    BLIND_MARGIN_S,
    BLIND_S,
    RESUMED_S,
    SETTLE_S,
    SUSPENDED_S,
    WAIT_MAX_S,
    IdleSuspend,
)

START = 1000.0


def started() -> IdleSuspend:
    idle = IdleSuspend()
    idle.started(START)
    return idle


def test_it_is_not_suspended_before_it_has_settled() -> None:
    idle = started()
    assert idle.tick(START) == START + SETTLE_S
    assert not idle.suspended


def test_it_is_suspended_and_resumed_for_a_moment_in_turns() -> None:
    idle = started()
    now = START + SETTLE_S
    for _ in range(3):
        assert idle.tick(now) == now + SUSPENDED_S
        assert idle.suspended
        now += SUSPENDED_S
        assert idle.tick(now) == now + RESUMED_S
        assert not idle.suspended
        now += RESUMED_S


def test_a_viewer_resumes_it_and_keeps_it_running() -> None:
    idle = started()
    idle.tick(START + SETTLE_S)
    assert idle.suspended
    assert idle.acquire(1, START + 60) == 0
    assert not idle.suspended
    assert idle.tick(START + 3600) is None
    assert not idle.suspended


def test_it_settles_again_after_the_last_viewer() -> None:
    idle = started()
    idle.acquire(1, START)
    idle.acquire(2, START)
    idle.release(1, START + 5)
    assert idle.tick(START + 50) is None
    idle.release(2, START + 60)
    assert idle.tick(START + 60) == START + 60 + SETTLE_S


def test_it_settles_after_the_stream_server_has_ended() -> None:
    idle = started()
    idle.acquire(1, START)
    idle.release_all(START + 10)
    idle.tick(START + 10 + SETTLE_S)
    assert idle.suspended


def test_it_is_suspended_while_it_detects_no_changes() -> None:
    idle = started()
    idle.primed(START)
    assert idle.tick(START) == START + BLIND_S
    assert idle.suspended
    assert idle.tick(START + BLIND_S) == START + BLIND_S + SETTLE_S
    assert not idle.suspended


def test_a_viewer_is_passed_on_at_once_when_that_time_has_just_begun() -> None:
    idle = started()
    idle.primed(START)
    idle.tick(START)
    assert idle.acquire(1, START + 0.1) == 0
    assert not idle.suspended
    assert idle.acquire(2, START + 0.1 + BLIND_S) > 0  # the first viewer began it anew


def test_a_viewer_waits_for_the_end_of_that_time_when_it_is_near() -> None:
    idle = started()
    idle.primed(START)
    late = START + BLIND_S - 0.1
    assert abs(idle.acquire(1, late) - (0.1 + BLIND_MARGIN_S)) < 1e-6
    assert idle.acquire(2, START + BLIND_S + BLIND_MARGIN_S) == 0


def test_a_restarted_x11vnc_begins_anew() -> None:
    idle = started()
    idle.primed(START)
    idle.started(START + 0.1)
    assert idle.acquire(1, START + 0.2) == 0
    assert not idle.suspended


actions = st.lists(
    st.tuples(
        st.sampled_from(["tick", "acquire", "release", "release_all", "primed", "started"]),
        st.integers(0, 2),
        st.floats(0, 3),
    ),
    max_size=60,
)


@given(actions)
def test_it_is_never_suspended_while_a_viewer_is_connected(
    steps: list[tuple[str, int, float]],
) -> None:
    idle, now = started(), START
    viewers: set[int] = set()
    for action, viewer, elapsed_s in steps:
        now += elapsed_s
        match action:
            case "acquire":
                assert 0 <= idle.acquire(viewer, now) <= WAIT_MAX_S
                viewers.add(viewer)
            case "release":
                idle.release(viewer, now)
                viewers.discard(viewer)
            case "release_all":
                idle.release_all(now)
                viewers.clear()
            case "primed":
                idle.primed(now)
            case "started":
                idle.started(now)
        change_at = idle.tick(now)
        assert (change_at is None) == bool(viewers)
        assert not (viewers and idle.suspended)
        assert change_at is None or change_at <= now + SETTLE_S
