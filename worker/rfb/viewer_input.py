"""The key and pointer events of a viewer with control (RFC 6143 §7.5.4 and §7.5.5)."""

from __future__ import annotations

import struct
from typing import Final

from worker.rfb.rate import Rate

KEY_EVENT: Final = struct.Struct(">BBxxI")  # type, down, keysym
POINTER_EVENT: Final = struct.Struct(">BBHH")  # type, buttons, x, y
KEY_EVENT_TYPE: Final = 4
POINTER_EVENT_TYPE: Final = 5

MAX_KEYS_DOWN: Final = 256
KEYSYM_MAX: Final = 0x1FFF_FFFF  # X11 protocol, appendix A: the top three bits of a keysym are 0
MOTIONS_PER_S: Final = 125  # as a usual mouse; noVNC and TigerVNC send 60
MOTIONS_BURST: Final = 25


class ViewerInput:
    """What has passed of a viewer's input, and the pointer's last motion if that has not.

    Motions of the pointer that come faster than `MOTIONS_PER_S` are replaced by the newest one.
    It passes when its time has come, or before any other input. Keys and buttons are not dropped.

    Times are in seconds of one monotonic clock.
    """

    def __init__(self, screen_px: tuple[int, int]) -> None:
        self._width, self._height = screen_px
        self._keys_down: dict[int, None] = {}  # in the order in which they were pressed
        self._buttons = self._x = self._y = 0
        self._motion = b""
        self._motions = Rate(per_s=MOTIONS_PER_S, burst=MOTIONS_BURST)

    def is_motion(self, raw: bytes) -> bool:
        """Whether a PointerEvent changes no button."""
        _, buttons, _, _ = POINTER_EVENT.unpack(raw)
        return bool(buttons == self._buttons)

    def pointer(self, raw: bytes, now: float) -> bytes:
        """Take a PointerEvent, clamp it to the screen, and return the events that pass now."""
        _, buttons, x, y = POINTER_EVENT.unpack(raw)
        x, y = min(x, self._width - 1), min(y, self._height - 1)
        event = POINTER_EVENT.pack(POINTER_EVENT_TYPE, buttons, x, y)
        is_motion = self.is_motion(raw)
        self._buttons, self._x, self._y = buttons, x, y
        if not is_motion:
            return self.flush() + event
        self._motion = event
        return self.due(now)

    def key(self, raw: bytes) -> bytes:
        """Take a KeyEvent; return the events that pass. An impossible keysym does not."""
        _, down, keysym = KEY_EVENT.unpack(raw)
        if not 0 < keysym <= KEYSYM_MAX:
            return b""
        if not down:
            self._keys_down.pop(keysym, None)
        elif len(self._keys_down) < MAX_KEYS_DOWN:
            self._keys_down[keysym] = None
        return self.flush() + KEY_EVENT.pack(KEY_EVENT_TYPE, int(down != 0), keysym)

    def flush(self) -> bytes:
        """Return the motion that has not passed yet, if any: other input follows."""
        motion, self._motion = self._motion, b""
        return motion

    def due(self, now: float) -> bytes:
        """Return the motion that may pass now, if any."""
        if not self._motion or not self._motions.is_ready(now):
            return b""
        self._motions.take(now)
        return self.flush()

    def due_at(self, now: float) -> float | None:
        """Return when the motion that has not passed may pass; None if there is none."""
        return self._motions.ready_at(now) if self._motion else None

    def release(self) -> bytes:
        """Return the events that release every key and button that the viewer holds down.

        Neither libvncserver nor x11vnc releases them when a client disconnects, and the task's
        browser would continue with, for example, Shift held down.
        """
        events = [self.flush()] if self._buttons else []
        events += [
            KEY_EVENT.pack(KEY_EVENT_TYPE, 0, keysym) for keysym in reversed(self._keys_down)
        ]
        if self._buttons:
            events.append(POINTER_EVENT.pack(POINTER_EVENT_TYPE, 0, self._x, self._y))
        self._keys_down.clear()
        self._motion, self._buttons = b"", 0
        return b"".join(events)
