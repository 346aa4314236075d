"""Outcomes: the exit code and what viewers are told."""

from __future__ import annotations

import pytest

from worker import outcome
from worker.outcome import Close, TaskError


@pytest.mark.parametrize(("returncode", "exit_code"), [(0, 0), (7, 7), (-9, 137), (-15, 143)])
def test_exit_codes_of_a_process(returncode, exit_code):
    """A process's own code passes through, a signal N as 128+N."""
    assert outcome.exited(returncode).exit_code == exit_code


def test_close_reasons():
    """Viewers are told the status, or that the display was lost."""
    error = TaskError(type="X", message="")
    assert outcome.success(None).close == Close(code=1000, reason="task success")
    assert outcome.raised(error).close == Close(code=1000, reason="task failed")
    assert outcome.timed_out(1).close == Close(code=1000, reason="task failed")
    assert outcome.cancelled(143).close == Close(code=1000, reason="task cancelled")
    assert outcome.session_lost(error).close == Close(code=1011, reason="display lost")
