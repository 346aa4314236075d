"""A real browser for the tests of pages, and checks of what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, WebSocket, sync_playwright

PATIENCE_MS = 20_000
BLUE, ORANGE = (20, 120, 220), (240, 140, 20)
_JPEG_TOLERANCE = 8
_POLLS = 400
_POLL_MS = 25
_PIXEL = """([selector, x, y]) => {
  const canvas = document.querySelector(selector);  // none while the view connects again
  return canvas && [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[
                "--disable-background-networking",
                "--no-first-run",
                "--force-prefers-reduced-motion",  # an animation is drawn 60 times a second
            ],
        )
        yield browser
        browser.close()


def wait_for_pixel(
    page: Page,
    place: tuple[int, int],
    colour: tuple[int, int, int],
    canvas: str = '#stage [data-layer="live"] canvas',
) -> None:
    """Wait until a pixel of a canvas has this colour, within the tolerance of JPEG."""
    found: Any = None
    for _ in range(_POLLS):
        found = page.evaluate(_PIXEL, [canvas, *place])
        if found and all(abs(a - b) <= _JPEG_TOLERANCE for a, b in zip(found, colour, strict=True)):
            return
        page.wait_for_timeout(_POLL_MS)
    pytest.fail(f"the pixel at {place} is {found}, not {colour}")


class Sockets:
    """The WebSockets that a page opens after this object is made."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._sockets: list[WebSocket] = []
        page.on("websocket", self._add)

    def _add(self, socket: WebSocket) -> None:
        self._sockets.append(socket)

    def closed(self) -> list[bool]:
        """Wait until all are closed, or 10 s; whether each is."""
        for _ in range(_POLLS):
            if all(socket.is_closed() for socket in self._sockets):
                break
            self._page.wait_for_timeout(_POLL_MS)
        return [socket.is_closed() for socket in self._sockets]
