"""A connection to the X server, through python-xlib."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, Final

import Xlib.display
import Xlib.error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# python-xlib finds the cookie by the process's XAUTHORITY only.
_ENVIRONMENT: Final = threading.Lock()


class Failed(Exception):
    """The X server does not answer, or has closed the connection."""


@contextlib.contextmanager
def connect(display: str, authority: Path) -> Iterator[Any]:
    """A python-xlib `Display`.

    Args:
        display: for example `:7`.
        authority: the file with its cookie.

    Raises:
        Failed: there is no such display, or it has closed the connection.
    """
    try:
        with _ENVIRONMENT:
            before = os.environ.get("XAUTHORITY")
            os.environ["XAUTHORITY"] = str(authority)
            try:
                server = Xlib.display.Display(display)
            finally:
                if before is None:
                    del os.environ["XAUTHORITY"]
                else:
                    os.environ["XAUTHORITY"] = before
        try:
            yield server
        finally:
            server.close()
    except (Xlib.error.DisplayError, Xlib.error.ConnectionClosedError, OSError) as error:
        raise Failed(str(error)) from error
