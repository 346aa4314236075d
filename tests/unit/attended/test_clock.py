"""The clock that leaves out the time in which its process did not run."""

from __future__ import annotations

import pytest

from worker.attended.clock import GAP_MAX_S, AttendedClock


class Time:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_it_follows_the_time_while_it_is_read_often():
    time = Time()
    clock = AttendedClock(time)
    began = clock()
    for _ in range(600):
        time.now_s += 0.2
        clock()
    assert clock() - began == pytest.approx(120)


def test_it_leaves_out_the_time_in_which_the_process_was_stopped():
    time = Time()
    clock = AttendedClock(time)
    began = clock()
    time.now_s += 120
    assert clock() - began == GAP_MAX_S
    assert clock() - began == GAP_MAX_S
