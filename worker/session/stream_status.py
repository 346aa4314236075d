"""Whether viewers can connect, as the events `stream.ready` and `stream.lost` report it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class StreamStatus:
    """Which of the programs that serve viewers are down."""

    def __init__(self, on_ready: Callable[[], None], on_lost: Callable[[str, str], None]) -> None:
        """Begin before the first start of the stream.

        Args:
            on_ready: called when viewers can connect, for the first time or again.
            on_lost: called with the name of a program and why it has ended.
        """
        self._on_ready, self._on_lost = on_ready, on_lost
        self._opened = False
        self._down: set[str] = set()

    def opened(self) -> None:
        """The stream was started. A program may have ended again since it was ready."""
        self._opened = True
        self._report_ready()

    def lost(self, name: str, why: str) -> None:
        """A program that was ready has ended."""
        self._down.add(name)
        if self._opened:
            self._on_lost(name, why)

    def back(self, name: str) -> None:
        """It is ready again."""
        self._down.discard(name)
        if self._opened:
            self._report_ready()

    def _report_ready(self) -> None:
        if not self._down:
            self._on_ready()
