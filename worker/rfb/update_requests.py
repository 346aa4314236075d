"""A viewer's FramebufferUpdateRequests (RFC 6143 §7.5.3): clamped, merged, and passed in time.

A request that may not pass yet is kept and merged with those that follow, so that the viewer gets
its update later, but does get it. Several requests may so have one answer; RFC 6143 allows that.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from worker.rfb.rate import Rate

MESSAGE: Final = struct.Struct(">BBHHHH")  # type, incremental, x, y, width, height
MESSAGE_TYPE: Final = 3

REQUESTS_PER_S: Final = 200  # x11vnc answers no more than that: it polls the screen as often
REQUESTS_BURST: Final = 50
FULL_FRAMES_PER_S: Final = 2  # by area: a small full request costs a part of a frame
FULL_FRAMES_BURST: Final = 2
FULL_REQUEST_COST: Final = 0.005  # of a frame, in addition to its area
# The next full request then passes though the last frame's end was missed. Its begin is not missed:
# a VNC server that was not running would answer all that passed meanwhile, with a frame each.
FRAME_WAIT_S: Final = 1.0


class Area(NamedTuple):
    """A part of the screen, in pixels; `right` and `bottom` are just outside."""

    left: int
    top: int
    right: int
    bottom: int

    def union(self, other: Area | None) -> Area:
        """Return the smallest area that contains both."""
        if other is None:
            return self
        return Area(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )


class UpdateRequests:
    """What a viewer has requested, and what of it has passed.

    Times are in seconds of one monotonic clock.

    Args:
        screen_px: Width and height of the framebuffer.
        one_frame: Whether non-incremental requests pass one at a time: the next one is kept until
            `frame_sent`, or until `FRAME_WAIT_S` have passed and the server has sent something.

    Attributes:
        passed: How many have passed so far.
        full_passed: How many of them were non-incremental.
        awaits_frame: With `one_frame`, whether a non-incremental request has passed whose frame
            has not been sent.
    """

    def __init__(self, screen_px: tuple[int, int], *, one_frame: bool) -> None:
        self.passed = self.full_passed = 0
        self.awaits_frame = False
        self._width, self._height = screen_px
        self._one_frame = one_frame
        self._held = False
        self._frame_began = False
        self._full: Area | None = None  # not passed yet
        self._incremental: Area | None = None  # not passed yet
        self._last: Area | None = None
        self._last_full_at = 0.0
        self._rate = Rate(per_s=REQUESTS_PER_S, burst=REQUESTS_BURST)
        self._frames = Rate(per_s=FULL_FRAMES_PER_S, burst=FULL_FRAMES_BURST)

    def add(self, raw: bytes) -> None:
        """Note a request of the viewer.

        It is clamped to the screen. One that is empty, or outside of the screen, is dropped: there
        is nothing to answer it with, and with a width of 0 libvncserver's encoders divide by 0.
        """
        _, incremental, x, y, width, height = MESSAGE.unpack(raw)
        area = Area(x, y, min(x + width, self._width), min(y + height, self._height))
        if area.left >= area.right or area.top >= area.bottom:
            return
        if incremental:
            self._incremental = area.union(self._incremental)
        else:
            self._full = area.union(self._full)

    def due(self, now: float) -> bytes:
        """Return the request that may pass now, if any."""
        if self._frame_began and now - self._last_full_at >= FRAME_WAIT_S:
            self.awaits_frame = False
        if self._held or not self._rate.is_ready(now):
            return b""
        if self._full is not None and not self.awaits_frame and self._frames.is_ready(now):
            area, self._full = self._full.union(self._incremental), None
            self._frames.take(now, self._frames_in(area) + FULL_REQUEST_COST)
            self.awaits_frame, self._last_full_at = self._one_frame, now
            self._frame_began = False
            self.full_passed += 1
            incremental = False
        elif self._incremental is not None:
            area, incremental = self._incremental, True
        else:
            return b""
        self._incremental = None
        self._rate.take(now)
        self.passed += 1
        self._last = area
        return _packed(area, incremental=incremental)

    def due_at(self, now: float) -> float | None:
        """Return when the next request may pass; None if that does not depend on the time."""
        if self._held or (self._full is None and self._incremental is None):
            return None
        if self._incremental is not None:
            return self._rate.ready_at(now)
        earliest = max(self._rate.ready_at(now), self._frames.ready_at(now))
        if not self.awaits_frame:
            return earliest
        return max(earliest, self._last_full_at + FRAME_WAIT_S) if self._frame_began else None

    def hold(self, *, held: bool) -> None:
        """Keep all requests from now on, or let them pass again.

        x11vnc sends a viewer only what was requested, so it stops sending.
        """
        self._held = held

    def server_sent(self) -> None:
        """Note that the VNC server has sent something: maybe a part of the frame."""
        self._frame_began = True

    def frame_sent(self) -> None:
        """Let the next non-incremental request pass.

        x11vnc answers each of them with a full update, up to 8 MB of pixels, even if several
        arrive at once, so they pass one at a time.
        """
        self.awaits_frame = False

    def last_frame_requests(self) -> bytes:
        """Return requests that make x11vnc send what has changed since its last update.

        The first is non-incremental, for one pixel, and is answered at once. libvncserver then
        takes the viewer's own last request as answered too, so the second, incremental one
        replaces it. Empty if no request has passed yet.
        """
        if self._last is None:
            return b""
        x, y, *_ = self._last
        pixel = _packed(Area(x, y, x + 1, y + 1), incremental=False)
        return pixel + _packed(self._last, incremental=True)

    def _frames_in(self, area: Area) -> float:
        pixels = (area.right - area.left) * (area.bottom - area.top)
        return pixels / (self._width * self._height)


def _packed(area: Area, *, incremental: bool) -> bytes:
    return MESSAGE.pack(
        MESSAGE_TYPE,
        incremental,
        area.left,
        area.top,
        area.right - area.left,
        area.bottom - area.top,
    )
