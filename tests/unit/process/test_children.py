"""Signals to processes that are not there."""

from __future__ import annotations

import signal

from worker.process.children import exited, send_signal


def test_zero_is_nobody():
    """Process 0, which kill(2) takes for the caller's whole group, is never signalled."""
    send_signal(0, signal.SIGTERM)


async def test_a_process_that_never_was_has_ended():
    """Waiting for the end of process 0, or of one that is gone, returns at once."""
    await exited(0)
    await exited(2**22 - 1)
