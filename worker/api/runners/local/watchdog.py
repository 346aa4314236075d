"""The watchdog of the local runner: ends a worker that exceeds its task's timeout by far."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from worker.attended.clock import TICK_S, AttendedClock
from worker.process.children import exited, send_signal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from worker.api.runners.local.worker_process import WorkerProcess

    Run = Callable[..., Awaitable[None]]

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_KILL_LIMIT_S: Final = 5.0
_PAUSE_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Watchdog:
    """The time that a worker may take.

    A worker enforces its task's timeout and limits of its own: 20 s for its start and 25 s for its
    end. So only one that hangs or is stopped (SIGSTOP) exceeds the watchdog's limit. Time in which
    the API's process did not run either, because the machine was suspended, does not count.
    """

    margin_s: float = 90.0
    """Added to the task's timeout: start and end, and as much again for a busy machine."""
    grace_s: float = 30.0
    """From SIGTERM to SIGKILL."""

    async def ends_in_time(self, process: WorkerProcess, timeout_s: float) -> bool:
        """Wait for a worker's end; False if it exceeds the limit, counted from its start."""
        return await _ends_within(process, timeout_s + self.margin_s - _age_s(process))

    async def end(
        self, process: WorkerProcess, number: int = signal.SIGTERM, *, run: Run = asyncio.to_thread
    ) -> None:
        """A signal to the worker, a bounded wait, then `kill`."""
        process.send(number)
        await _ends_within(process, self.grace_s)
        await self.kill(process, run=run)

    async def kill(self, process: WorkerProcess, *, run: Run = asyncio.to_thread) -> None:
        """SIGKILL to the worker and all its descendants.

        Args:
            process: the worker.
            run: calls a function in a thread; this one blocks for up to 5 s.
        """
        await run(_kill, process)


async def _ends_within(process: WorkerProcess, seconds: float) -> bool:
    clock = AttendedClock()
    until = clock() + seconds
    ended = asyncio.ensure_future(exited(process.pid))
    try:
        while True:
            left_s = until - clock()
            await asyncio.wait([ended], timeout=min(max(0.0, left_s), TICK_S))
            if ended.done():
                ended.result()
                return True
            if left_s <= 0:
                return False
    finally:
        ended.cancel()


def _age_s(process: WorkerProcess) -> float:
    """The time since its start, at least 0.

    The start is by CLOCK_BOOTTIME. All suspensions of the machine are left out, also those before
    the start: at worst, a worker gets its whole time once more from an API that was restarted.
    """
    return max(0.0, time.monotonic() - process.started / _TICKS_PER_S)


def _kill(process: WorkerProcess) -> None:
    """Kill the worker last: it is a subreaper, so its orphans stay its descendants until then."""
    if not process.exists:
        return
    send_signal(process.pid, signal.SIGSTOP)  # so that it starts nothing
    with contextlib.suppress(psutil.Error):  # it has ended, or /proc hides it (hidepid)
        worker = psutil.Process(process.pid)
        give_up_at = time.monotonic() + _KILL_LIMIT_S
        while (left := _running_descendants(worker)) and time.monotonic() < give_up_at:
            for each in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            time.sleep(_PAUSE_S)
    send_signal(process.pid, signal.SIGKILL)


def _running_descendants(worker: psutil.Process) -> list[psutil.Process]:
    found = []
    for below in worker.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if below.status() != psutil.STATUS_ZOMBIE:
                found.append(below)
    return found
