"""The watchdog of the local runner: the end of a worker that outstays its time by far."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from worker.process.children import exited

if TYPE_CHECKING:
    from worker.api.runners.local.worker_process import Process

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_KILL_LIMIT_S: Final = 5.0
_PAUSE_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Watchdog:
    """How long a worker may stay.

    A worker holds its task to the timeout and itself to limits of its own: 20 s for its start, 25 s
    for its end. So it is only ever one that hangs, or is stopped, that is still there later.
    """

    margin_s: float = 90.0
    """From the task's timeout on: start and end, and as much again for a busy machine."""
    grace_s: float = 30.0
    """From TERM to KILL."""

    async def ends_in_time(self, process: Process, timeout_s: float) -> bool:
        """Wait for a worker's end; False when it is still there, this long after its start."""
        left_s = timeout_s + self.margin_s - _age_s(process)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await exited(process.pid)
                return True
        return False

    async def end(self, process: Process) -> None:
        """TERM to the worker, a bounded wait, then KILL to it and all below it."""
        process.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.grace_s):
                await exited(process.pid)
        await asyncio.to_thread(_kill, process)


def _age_s(process: Process) -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.started / _TICKS_PER_S


def _kill(process: Process) -> None:
    """Kill the worker last: it is a subreaper, so nothing below it gets out of sight till then."""
    if not process.there:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        worker = psutil.Process(process.pid)
        worker.suspend()  # it starts nothing anew
        give_up_at = time.monotonic() + _KILL_LIMIT_S
        while (left := _living(worker)) and time.monotonic() < give_up_at:
            for each in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            time.sleep(_PAUSE_S)
        worker.kill()


def _living(worker: psutil.Process) -> list[psutil.Process]:
    found = []
    for below in worker.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if below.status() != psutil.STATUS_ZOMBIE:
                found.append(below)
    return found
