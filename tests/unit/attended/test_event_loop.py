"""asyncio's timers leave out the time in which their process did not run."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from worker.attended import event_loop
from worker.attended.clock import AttendedClock

STOPPED_S = 120.0


class Stopped:
    """A clock; `seconds` is for how long the process was stopped so far."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.seconds


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Stopped:
    clock = Stopped()
    monkeypatch.setattr(event_loop, "AttendedClock", lambda: AttendedClock(clock))
    return clock


def test_a_timeout_leaves_out_a_suspension(stopped: Stopped) -> None:
    """What arrives after it is still in time."""

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)

            def suspend() -> None:
                stopped.seconds += STOPPED_S
                loop.call_soon(theirs.send, b"late")

            loop.call_soon(suspend)
            async with asyncio.timeout(STOPPED_S / 2):
                return await loop.sock_recv(ours, 10)

    assert event_loop.run(main()) == b"late"


def test_timers_of_less_than_a_second_are_exact() -> None:
    async def main() -> float:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        return time.monotonic() - began

    assert event_loop.run(main()) >= 0.01
