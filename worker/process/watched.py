"""A process of which another process is the parent, held by a pidfd.

A process id can be another process's by now; a pidfd cannot (pidfd_open(2)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal


class WatchedProcess:
    """A process, from the moment that its id is known until `close`. Used inside an event loop.

    Attributes:
        pid: its process id; 0 for one that had ended before its id was known.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._descriptor = -1
        if pid > 0:
            with contextlib.suppress(ProcessLookupError):
                self._descriptor = os.pidfd_open(pid)
        if self._descriptor < 0:
            self._ended.set_result(None)
        else:
            asyncio.get_running_loop().add_reader(self._descriptor, self._on_end)

    @property
    def running(self) -> bool:
        """Whether it has not ended, as of now."""
        if self._descriptor < 0:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)

    async def ended(self) -> None:
        """Wait until it has ended."""
        await asyncio.shield(self._ended)

    def send(self, signal_number: int) -> None:
        """Send it a signal; ignored when it has ended."""
        if self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal_number)

    async def stop(self, signal_number: int, grace_s: float) -> None:
        """Send a signal, wait for a bounded time, send SIGKILL, and wait again as long.

        A process in uninterruptible sleep outlives this.
        """
        for number in (signal_number, signal.SIGKILL):
            self.send(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self.ended()
                return

    def _on_end(self) -> None:
        self._ended.set_result(None)
        self._close_descriptor()

    def close(self) -> None:
        """Watch it no longer; waits for its end are cancelled."""
        self._close_descriptor()
        self._ended.cancel()

    def _close_descriptor(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
