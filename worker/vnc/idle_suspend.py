"""The doze: x11vnc is stopped while nobody watches, and woken before anybody does.

It looks at the screen two hundred times a second, 3 % of a core, whether anybody watches or not.
Letting it go and starting it again would cost the next viewer half a second, so it is stopped as
it is (SIGSTOP). What the X server has to tell it waits meanwhile in the X server's memory, so
every two seconds it gets a moment to take that in.

It also sleeps through the half second behind its first client, in which it does not watch for
changes (see `x11vnc.prime`): it reads the whole screen over and over instead, on the cores that the
browser wants to start on. A viewer that comes meanwhile would begin another such half second: it is
let through at once when that one has just begun, and behind it when it is nearly over.
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
BLIND_S: Final = 0.5
BLIND_END_S: Final = 0.03  # for it to begin to watch then
WAIT_MAX_S: Final = 0.3  # rather than to see nothing change for half a second


class IdleSuspend:
    """When x11vnc sleeps. `wake` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = -1  # a pidfd: a number could be somebody else's by now
        self._stopped = False
        self._blind = False
        self._change_at = 0.0
        self._sees_at = 0.0  # unless a further client comes before

    def use(self, pid: int) -> None:
        """x11vnc was started; 0: it is gone."""
        with self._lock:
            if self._process >= 0:
                os.close(self._process)
                self._process = -1
            with contextlib.suppress(OSError):
                self._process = os.pidfd_open(pid) if pid else -1
            self._send(signal.SIGCONT)  # another stream server may have died and left it stopped
            self._sees_at = 0.0
            self._settle()

    def skip_blind(self) -> None:
        """Its first client, who does not look, has just come."""
        with self._lock:
            now = time.monotonic()
            self._blind, self._change_at = True, now
            self._sees_at = now + BLIND_S

    def wait_s(self) -> float:
        """How many seconds a viewer had better wait before it connects; it was woken for it."""
        with self._lock:
            now = time.monotonic()
            left_s = max(0.0, self._sees_at + BLIND_END_S - now)
            if left_s <= WAIT_MAX_S:
                return left_s
            self._sees_at = now + BLIND_S
            return 0.0

    def wake(self) -> None:
        """Somebody comes, or it is to end: it runs from now on."""
        with self._lock:
            if self._stopped:
                self._send(signal.SIGCONT)
            self._settle()

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
                self._turn(now)
            return self._change_at - now

    def _turn(self, now: float) -> None:
        if self._blind and now >= self._sees_at:
            if self._stopped:
                self._send(signal.SIGCONT)
            self._settle()
        elif self._stopped:
            self._send(signal.SIGCONT)
            self._change_at = now + MOMENT_S
        else:
            self._send(signal.SIGSTOP)
            self._change_at = self._sees_at if self._blind else now + SLEEP_S

    def _settle(self) -> None:
        self._blind, self._change_at = False, time.monotonic() + SETTLE_S

    def _send(self, signal_number: signal.Signals) -> None:
        self._stopped = signal_number == signal.SIGSTOP
        if self._process < 0:
            return
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._process, signal_number)
