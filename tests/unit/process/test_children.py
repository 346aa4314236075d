"""Signals to processes that do not exist."""

from __future__ import annotations

import signal

from worker.process.children import exited, send_signal


def test_process_zero_is_never_signalled() -> None:
    send_signal(0, signal.SIGTERM)  # kill(2) takes 0 for the caller's whole group


async def test_a_process_that_does_not_exist_has_exited() -> None:
    await exited(0)
    await exited(2**22 - 1)
