"""The last frame: whether x11vnc has sent what the task drew last.

x11vnc does not say when it is done, and on a busy machine it may not get to look at the screen for
a while: its silence alone proves nothing. So it is asked twice for a single pixel afresh. It looks
at the screen between two answers, and what it saw is in the second one or right behind it.
"""

from __future__ import annotations

from typing import Final

QUIET_S: Final = 0.1  # x11vnc looks at the screen twenty times meanwhile
LOOKS: Final = 2
MOVING_S: Final = 0.3  # a screen that does not come to rest has no last frame
STARVED_S: Final = 1.0  # no longer than this for its answers


class LastFrame:
    """What is known since the stream's end was decided.

    Args:
        now: that moment, by time.monotonic().
        ask: whether x11vnc may be asked: the viewer wants updates, and takes them.
    """

    def __init__(self, now: float, *, ask: bool) -> None:
        self._began = self._looked_at = self._quiet_since = now
        self._looks_left = LOOKS if ask else 0

    @property
    def asks(self) -> bool:
        """Whether x11vnc is to be asked now: at the beginning, and after each answer."""
        return self._looks_left > 0

    def heard(self, now: float) -> None:
        """X11vnc has sent something."""
        self._quiet_since = now
        if self._looks_left:
            self._looked_at = now
            self._looks_left -= 1

    def is_out(self, now: float) -> bool:
        """Whether to wait no longer."""
        if self._looks_left:
            return now - self._began >= STARVED_S
        return now - self._quiet_since >= QUIET_S or now - self._looked_at >= MOVING_S
