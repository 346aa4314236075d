"""When a program that has ended is started again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.process.program import DELAY_FIRST_S, DELAY_MAX_S, HEALTHY_S, Backoff


def test_first_restart_is_immediate_and_later_ones_wait_longer_up_to_the_maximum() -> None:
    backoff = Backoff()
    delays = [backoff.ended(0.0) for _ in range(10)]
    doubled = [DELAY_FIRST_S * 2**n for n in range(9)]
    assert delays == [0.0, *(min(DELAY_MAX_S, delay) for delay in doubled)]
    assert delays[-1] == DELAY_MAX_S


def test_delay_is_bounded_after_any_number_of_ends() -> None:
    """2.0 ** 2000 is not a float."""
    backoff = Backoff(in_a_row=2000)
    assert backoff.ended(0.0) == DELAY_MAX_S


@pytest.mark.parametrize(
    ("ready_for_s", "in_a_row"), [(0.0, 4), (HEALTHY_S - 0.001, 4), (HEALTHY_S, 1)]
)
def test_healthy_program_starts_anew(ready_for_s: float, in_a_row: int) -> None:
    backoff = Backoff(in_a_row=3)
    backoff.ready(100.0)
    backoff.ended(100.0 + ready_for_s)
    assert backoff.in_a_row == in_a_row


def test_program_that_is_never_ready_is_never_healthy() -> None:
    backoff = Backoff()
    backoff.ready(0.0)
    for count in range(1, 5):
        backoff.ended(count * 2 * HEALTHY_S)
        assert backoff.in_a_row == count
        assert not backoff.is_ready


@given(st.lists(st.tuples(st.booleans(), st.floats(0, HEALTHY_S * 2)), max_size=60))
def test_restarts_per_time_are_bounded(ends: list[tuple[bool, float]]) -> None:
    """Whatever a program does, n restarts take the time of n - k delays of the maximum."""
    backoff, now, starts = Backoff(), 0.0, []
    for becomes_ready, lasts_s in ends:
        starts.append(now)
        if becomes_ready:
            backoff.ready(now)
        now += lasts_s
        now += backoff.ended(now)
    for earlier, later in zip(starts, starts[12:], strict=False):
        assert later - earlier >= DELAY_MAX_S
