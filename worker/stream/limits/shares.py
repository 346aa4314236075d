"""How x11vnc's time is shared among its viewers.

x11vnc encodes the updates of all viewers in one thread. A viewer whose updates take long, because
of its encodings or because it requests much, would take the time of the others. Each viewer
therefore has an account of the CPU time that x11vnc spends on it: what x11vnc has used from the
arrival of any viewer's data to the arrival of this viewer's. Waiting for changes costs nothing.
An account is refilled with an equal share of the time, among the viewers that x11vnc has served
lately. While it is overdrawn, the viewer's update requests are held back, so it gets fewer updates,
each with all that has changed.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from worker.linux import peer_cpu_clock

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

SURPLUS: Final = 1.25  # of an equal share: x11vnc's own work is charged to its viewers as well
ACTIVE_S: Final = 2.0  # a viewer that was not served for so long needs no share
BURST_S: Final = 0.25  # of CPU time: a first frame, or a moment with much motion


class Shares:
    """The accounts of all viewers of one x11vnc.

    Args:
        monotonic: The time in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.now = monotonic
        self._lock = threading.Lock()
        self._viewers: set[Share] = set()
        self._used_s = 0.0

    def join(self, cpu_s: Callable[[], float]) -> Share:
        """Open an account.

        Args:
            cpu_s: Returns the CPU time that x11vnc has used so far, in seconds.
        """
        share = Share(self, cpu_s)
        self.use(cpu_s())
        with self._lock:
            self._viewers.add(share)
        return share

    def leave(self, share: Share) -> None:
        """Close an account."""
        with self._lock:
            self._viewers.discard(share)

    def use(self, used_s: float) -> float:
        """Note the CPU time used so far; return how much of it is new.

        At most `BURST_S`: before the first data after a pause x11vnc has polled the screen for
        all of its viewers.
        """
        with self._lock:
            new_s = used_s - self._used_s
            self._used_s = used_s
        return min(max(0.0, new_s), BURST_S)  # a restarted x11vnc begins at 0

    @property
    def refill(self) -> float:
        """How much CPU time an account gets per second."""
        now = self.now()
        with self._lock:
            active = sum(now - viewer.served_at < ACTIVE_S for viewer in self._viewers)
        return min(1.0, SURPLUS / max(1, active))


class Share:
    """The account of one viewer, used by its thread.

    Attributes:
        served_at: When x11vnc has last sent this viewer something.
    """

    def __init__(self, shares: Shares, cpu_s: Callable[[], float]) -> None:
        self._shares, self._cpu_s = shares, cpu_s
        self._left_s = BURST_S
        self._at = self.served_at = shares.now()

    def served(self) -> None:
        """Note that x11vnc has sent this viewer something."""
        self.served_at = self._refill()
        self._left_s -= self._shares.use(self._cpu_s())

    def overdrawn_s(self) -> float:
        """Return for how long the viewer's update requests are to be held back; 0 if not."""
        self._refill()
        return -self._left_s / self._shares.refill if self._left_s < 0 else 0.0

    def leave(self) -> None:
        """Close the account."""
        self._shares.leave(self)

    def _refill(self) -> float:
        now = self._shares.now()
        if self._left_s < BURST_S:
            refilled_s = self._left_s + (now - self._at) * self._shares.refill
            self._left_s = min(BURST_S, refilled_s)
        self._at = now
        return now


def peer_cpu_s(connection: socket.socket) -> Callable[[], float]:
    """Return a function for the CPU time of the process that listens for this connection.

    Where the kernel does not tell it, the time is always 0, and nothing is shared out.
    """
    clock = peer_cpu_clock(connection)

    def used_s() -> float:
        try:
            return time.clock_gettime(clock)
        except OSError:  # the process has ended
            return 0.0

    return used_s
