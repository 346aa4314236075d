"""Outcomes: the exit code and the viewers' close code."""

from __future__ import annotations

import pytest

from worker import outcome
from worker.close_codes import Close
from worker.outcome import TaskError

ERROR = TaskError(type="X", message="")


@pytest.mark.parametrize(("returncode", "exit_code"), [(0, 0), (7, 7), (-9, 137), (-15, 143)])
def test_a_processs_own_code_passes_through_and_signal_n_is_128_plus_n(returncode, exit_code):
    assert outcome.exited(returncode).exit_code == exit_code


@pytest.mark.parametrize(
    ("ended", "exit_code"),
    [
        (outcome.success(None), 0),
        (outcome.raised(ERROR), 1),
        (outcome.timed_out(1), 124),
        (outcome.cancelled(143), 143),
        (outcome.session_lost(ERROR), 70),
        (outcome.disk_full(), 1),
    ],
)
def test_exit_codes(ended, exit_code):
    assert ended.exit_code == exit_code


@pytest.mark.parametrize(
    ("ended", "close"),
    [
        (outcome.success(None), Close(code=1000, reason="task success")),
        (outcome.raised(ERROR), Close(code=1000, reason="task failed")),
        (outcome.timed_out(1), Close(code=1000, reason="task failed")),
        (outcome.cancelled(143), Close(code=1000, reason="task cancelled")),
        (outcome.disk_full(), Close(code=1000, reason="task failed")),
        (outcome.session_lost(ERROR), Close(code=1011, reason="display lost")),
    ],
)
def test_viewers_get_the_status_or_that_the_display_was_lost(ended, close):
    assert ended.close == close
