"""Decides when x11vnc is suspended because no viewer is connected. Pure: the caller sends signals.

x11vnc polls the screen two hundred times a second, 3 % of a core, whether or not it has viewers.
Stopping and starting it would cost the next viewer half a second, so it is suspended (SIGSTOP).
The X server keeps x11vnc's events in its memory meanwhile, so every two seconds x11vnc is resumed
for a moment to read them.

x11vnc is also suspended for the half second after its first client has connected (the priming
client, see `x11vnc`). In that time it does not detect changes but reads the whole screen over and
over, on the cores that the browser needs for its start. Each further client that connects in that
time begins another half second. A viewer is therefore passed on at once when the half second has
just begun, and waits for its end when that is near.
"""

from __future__ import annotations

from typing import Final

SETTLE_S: Final = 2.0  # from its start, or from the last viewer's end, to the first suspension
SUSPENDED_S: Final = 2.0
RESUMED_S: Final = 0.015
BLIND_S: Final = 0.5  # how long x11vnc detects no changes after a client has connected
BLIND_MARGIN_S: Final = 0.03  # for x11vnc to begin to detect changes after that
WAIT_MAX_S: Final = 0.3  # a viewer waits no longer than this for the end of that time


class IdleSuspend:
    """The state of one x11vnc; `now` is by a monotonic clock, in seconds.

    Attributes:
        suspended: whether x11vnc is to be suspended.
    """

    def __init__(self) -> None:
        self.suspended = False
        self._viewers: set[int] = set()
        self._blind = False  # suspended, or to be suspended, until `_detects_at`
        self._detects_at = 0.0  # unless a further client connects before
        self._change_at = 0.0

    def started(self, now: float) -> None:
        """x11vnc was started; it is not suspended."""
        self._detects_at = 0.0
        self._settle(now)

    def primed(self, now: float) -> None:
        """x11vnc's first client has just connected."""
        self._detects_at = now + BLIND_S
        if not self._viewers:
            self._blind, self._change_at = True, now

    def acquire(self, viewer: int, now: float) -> float:
        """A viewer is about to connect: resume. Returns how many seconds it waits before."""
        self._viewers.add(viewer)
        self._settle(now)
        wait_s = max(0.0, self._detects_at + BLIND_MARGIN_S - now)
        if wait_s <= WAIT_MAX_S:
            return wait_s
        self._detects_at = now + BLIND_S
        return 0.0

    def release(self, viewer: int, now: float) -> None:
        """A viewer has disconnected."""
        if viewer in self._viewers:
            self._viewers.remove(viewer)
            self._settle(now)

    def release_all(self, now: float) -> None:
        """Every viewer has disconnected."""
        if self._viewers:
            self._viewers.clear()
            self._settle(now)

    def tick(self, now: float) -> float | None:
        """Update `suspended`; the time of the next change, None while viewers are connected."""
        if self._viewers:
            return None
        if now >= self._change_at:
            self._change(now)
        return self._change_at

    def _change(self, now: float) -> None:
        if self._blind and now >= self._detects_at:
            self._settle(now)
        elif self.suspended:
            self.suspended = False
            self._change_at = now + RESUMED_S
        else:
            self.suspended = True
            self._change_at = self._detects_at if self._blind else now + SUSPENDED_S

    def _settle(self, now: float) -> None:
        self.suspended = self._blind = False
        self._change_at = now + SETTLE_S
