"""What tests do on an X display: draw a window of one colour (`Canvas`), and look (`Observer`)."""

from __future__ import annotations

import os
import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from Xlib import X, error
from Xlib.display import Display
from Xlib.Xatom import CUT_BUFFER0, STRING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STRIP_BYTES = 512 * 1024  # python-xlib reads a reply in time quadratic to its size
_STRIP_ROWS = 8  # a request is at most 256 KiB
_environ_lock = threading.Lock()


@contextmanager
def _xauthority(path: str | Path | None) -> Iterator[None]:
    """Set XAUTHORITY in this context: python-xlib has no other way to name the cookie's file."""
    with _environ_lock:
        before = os.environ.get("XAUTHORITY")
        if path is not None:
            os.environ["XAUTHORITY"] = str(path)
        try:
            yield
        finally:
            if before is not None:
                os.environ["XAUTHORITY"] = before
            elif path is not None:
                del os.environ["XAUTHORITY"]


class _Client:
    """A connection to a display; None as `xauthority` means the environment's."""

    def __init__(self, display_name: str, xauthority: str | Path | None = None) -> None:
        with _xauthority(xauthority):
            self._display = Display(display_name)
        self._root = self._display.screen().root

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self.close()

    def close(self) -> None:
        """Disconnect; its windows are removed. A display that has ended is no error."""
        try:
            self._display.close()
        except error.ConnectionClosedError:
            self._display.display.socket.close()


class Canvas(_Client):
    """A mapped override-redirect window of one colour; by default it covers the screen."""

    def __init__(
        self,
        display_name: str,
        xauthority: str | Path | None = None,
        *,
        x: int = 0,
        y: int = 0,
        width: int | None = None,
        height: int | None = None,
        rgb: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        super().__init__(display_name, xauthority)
        screen = self._display.screen()
        self._window = self._root.create_window(
            x,
            y,
            screen.width_in_pixels - x if width is None else width,
            screen.height_in_pixels - y if height is None else height,
            border_width=0,
            depth=screen.root_depth,
            background_pixel=_pixel(rgb),
            override_redirect=True,
            event_mask=X.ExposureMask,
        )
        self._window.map()
        while self._display.next_event().type != X.Expose:
            pass

    def fill(self, rgb: tuple[int, int, int]) -> None:
        """Change the colour; on return the X server has drawn it."""
        self._window.change_attributes(background_pixel=_pixel(rgb))
        self._window.clear_area()
        self._display.sync()

    def pattern(self) -> None:
        """Draw random black and white pixels, which zlib compresses slowly."""
        geometry = self._window.get_geometry()
        context = self._window.create_gc()
        rng = random.Random(0)  # noqa: S311 - the same pattern each time
        ink = (b"\0\0\0\0", b"\xff\xff\xff\0")
        for y in range(0, geometry.height, _STRIP_ROWS):
            pixels = rng.choices(ink, (1, 4), k=geometry.width * _STRIP_ROWS)
            strip = (0, y, geometry.width, _STRIP_ROWS, X.ZPixmap, geometry.depth, 0)
            self._window.put_image(context, *strip, b"".join(pixels))
        self._display.sync()


@dataclass(frozen=True, slots=True)
class Window:
    """A child of the root window, in the stacking order's terms; sizes in pixels."""

    id: int
    x: int
    y: int
    width: int
    height: int
    viewable: bool
    override_redirect: bool


@dataclass(frozen=True, slots=True)
class Screenshot:
    """The whole screen; `data` is BGRX, row by row without padding."""

    width: int
    height: int
    data: bytes

    def pixel(self, x: int, y: int) -> tuple[int, int, int]:
        """(red, green, blue) of a pixel."""
        offset = (y * self.width + x) * 4
        blue, green, red = self.data[offset : offset + 3]
        return red, green, blue


class Observer(_Client):
    """Looks at a display without changing it."""

    def screen_size(self) -> tuple[int, int]:
        """(width, height) of the screen now, in pixels."""
        geometry = self._root.get_geometry()
        return geometry.width, geometry.height

    def pointer_position(self) -> tuple[int, int]:
        """(x, y) of the pointer."""
        pointer = self._root.query_pointer()
        return pointer.root_x, pointer.root_y

    def buttons_down(self) -> set[int]:
        """The pointer's buttons that are pressed, from 1 to 5."""
        mask = self._root.query_pointer().mask
        return {button for button in range(1, 6) if mask & X.Button1Mask << (button - 1)}

    def keys_down(self) -> set[int]:
        """The key codes of all pressed keys."""
        keymap = self._display.query_keymap()
        return {
            8 * at + bit for at, byte in enumerate(keymap) for bit in range(8) if byte >> bit & 1
        }

    def keycode(self, keysym: int) -> int:
        """The key that makes a symbol; 0 if none does."""
        code: int = self._display.keysym_to_keycode(keysym)
        return code

    def selection_owner(self, name: str) -> int | None:
        """The id of the window that owns "CLIPBOARD" or "PRIMARY", if one does."""
        owner = self._display.get_selection_owner(self._display.intern_atom(name))
        return owner.id if owner else None

    def cut_buffer(self) -> bytes:
        """CUT_BUFFER0: where the oldest X programs keep their clipboard."""
        value = self._root.get_full_property(CUT_BUFFER0, STRING)
        return bytes(value.value) if value else b""

    def windows(self) -> list[Window]:
        """The root's children, the lowest first."""
        found = []
        for window in self._root.query_tree().children:
            try:
                geometry, attributes = window.get_geometry(), window.get_attributes()
            except (error.BadWindow, error.BadDrawable):
                continue  # destroyed since
            found.append(
                Window(
                    id=window.id,
                    x=geometry.x,
                    y=geometry.y,
                    width=geometry.width,
                    height=geometry.height,
                    viewable=attributes.map_state == X.IsViewable,
                    override_redirect=bool(attributes.override_redirect),
                )
            )
        return found

    def screenshot(self) -> Screenshot:
        """Every pixel of the screen; strip by strip, so not of one moment."""
        width, height = self.screen_size()
        rows = max(1, _STRIP_BYTES // (width * 4))
        strips = [
            self._root.get_image(0, y, width, min(rows, height - y), X.ZPixmap, 0xFFFFFFFF).data
            for y in range(0, height, rows)
        ]
        return Screenshot(width, height, b"".join(strips))


def _pixel(rgb: tuple[int, int, int]) -> int:
    red, green, blue = rgb
    return red << 16 | green << 8 | blue
