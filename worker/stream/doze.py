"""The doze: x11vnc is stopped while nobody watches, and woken before anybody does.

It looks at the screen two hundred times a second, 3 % of a core, whether anybody watches or not.
Letting it go and starting it again would cost the next viewer half a second, so it is stopped as
it is (SIGSTOP). What the X server has to tell it waits meanwhile in the X server's memory, so
every two seconds it gets a moment to take that in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Final

SETTLE_S: Final = 2.0  # from its start, or the last viewer's leaving
SLEEP_S: Final = 2.0
MOMENT_S: Final = 0.015


class Doze:
    """When x11vnc sleeps. `wake` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = -1  # a pidfd: a number could be somebody else's by now
        self._stopped = False
        self._change_at = 0.0

    def use(self, pid: int) -> None:
        """x11vnc was started; 0: it is gone."""
        with self._lock:
            if self._process >= 0:
                os.close(self._process)
                self._process = -1
            with contextlib.suppress(OSError):
                self._process = os.pidfd_open(pid) if pid else -1
            self._send(signal.SIGCONT)  # another stream server may have died and left it stopped
            self._change_at = time.monotonic() + SETTLE_S

    def wake(self) -> None:
        """Somebody comes, or it is to end: it runs from now on."""
        with self._lock:
            if self._stopped:
                self._send(signal.SIGCONT)
            self._change_at = time.monotonic() + SETTLE_S

    def tick(self) -> float | None:
        """While nobody watches, stop it or give it its moment.

        Returns:
            The seconds until this is to be called again; None when there is nothing to do.
        """
        with self._lock:
            now = time.monotonic()
            if self._process < 0:
                return None
            if now >= self._change_at:
                self._send(signal.SIGCONT if self._stopped else signal.SIGSTOP)
                self._change_at = now + (SLEEP_S if self._stopped else MOMENT_S)
            return self._change_at - now

    def _send(self, signal_number: signal.Signals) -> None:
        self._stopped = signal_number == signal.SIGSTOP
        if self._process < 0:
            return
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._process, signal_number)
