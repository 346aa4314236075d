"""The last frame: whether the VNC server has sent what was drawn last on the display.

x11vnc does not report that it has sent everything, and on a busy machine it may not poll the screen
for a while, so its silence alone proves nothing. It is therefore sent two requests, one after the
other, for one pixel whether or not that changed. It polls the screen between its two answers, and
what it finds is in the second answer or directly behind it.
"""

from __future__ import annotations

from typing import Final

QUIET_S: Final = 0.1  # x11vnc polls the screen twenty times in this time
REQUESTS: Final = 2
MOVING_S: Final = 0.3  # from the last answer on: a screen that keeps changing has no last frame
ANSWERS_S: Final = 1.0  # for x11vnc's answers to all requests


class LastFrame:
    """What has been observed since the end of the stream was decided.

    Times are in seconds of one monotonic clock.

    Args:
        now: When it was decided.
        request: Whether the server may be sent requests: the viewer has asked for updates and has
            read what was sent.
    """

    def __init__(self, now: float, *, request: bool) -> None:
        self._began_at = self._answered_at = self._quiet_since = now
        self._requests_left = REQUESTS if request else 0

    @property
    def needs_request(self) -> bool:
        """Whether to send a request now: at the beginning, and after each answer but the last."""
        return self._requests_left > 0

    def server_sent(self, now: float) -> None:
        """Note that the server has sent something."""
        self._quiet_since = now
        if self._requests_left:
            self._answered_at = now
            self._requests_left -= 1

    def is_complete(self, now: float) -> bool:
        """Whether the last frame has been received, or there is no point in waiting longer."""
        if self._requests_left:
            return now - self._began_at >= ANSWERS_S
        return now - self._quiet_since >= QUIET_S or now - self._answered_at >= MOVING_S
