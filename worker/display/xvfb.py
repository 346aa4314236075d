"""Xvfb: the X server, with one screen of a fixed size; its clients need its cookie.

With `-displayfd` the server chooses a free display number itself, so that many workers can start
at once, unless it gets the sockets of a reserved display; it reports the number when it is ready.
In that mode it creates no lock file, and another's `/tmp/.X*-lock` cannot stop it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.display.screen import DEPTH_BITS, HEIGHT_PX, WIDTH_PX
from worker.errors import StartFailed
from worker.surroundings import interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.display.reserved import ReservedDisplay

READY_TIMEOUT_S: Final = 10.0

_EXECUTOR: Final = Path(__file__).with_name("execute_xvfb.py")
_COOKIE_BYTES: Final = 16
_FAMILY_LOCAL: Final = 256
_FAMILY_WILD: Final = 65535


def command(authority: Path, reserved: ReservedDisplay | None = None) -> list[str]:
    """The command line; the display number is written to stdout.

    Args:
        authority: the file with the display's cookie.
        reserved: the display, with descriptors that the program inherits; None: any free one.
    """
    return [
        *(_executor(reserved) if reserved else ()),
        "Xvfb",
        *("-displayfd", "1"),
        *((f":{reserved.number}",) if reserved else ()),
        *("-screen", "0", f"{WIDTH_PX}x{HEIGHT_PX}x{DEPTH_BITS}"),
        *("-auth", str(authority)),
        *("-nolisten", "tcp"),
        # Software OpenGL costs 100 ms and 25 MB; Chromium has its own for WebGL.
        *("-extension", "GLX"),
        "-noreset",  # otherwise the server resets when its last client disconnects
    ]


def _executor(reserved: ReservedDisplay) -> list[str]:
    descriptors = ",".join(map(str, reserved.descriptors))
    return [sys.executable, *interpreter.OPTIONS, "-S", str(_EXECUTOR), descriptors]


def write_authority(path: Path) -> None:
    """Create a random cookie for the server and its clients (Xsecurity(7), Xau(3)).

    Two entries, since libXau uses the wildcard and python-xlib only the one for this host.
    """
    cookie = secrets.token_bytes(_COOKIE_BYTES)
    name = b"MIT-MAGIC-COOKIE-1"
    entries = b""
    for family, address in ((_FAMILY_LOCAL, socket.gethostname().encode()), (_FAMILY_WILD, b"")):
        entries += struct.pack(">H", family)
        for text in (address, b"", name, cookie):
            entries += struct.pack(">H", len(text)) + text
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(entries)


def check(display: str, authority: Path) -> None:
    """Check that the display answers and has one screen of the fixed size.

    Args:
        display: for example `:7`.
        authority: the file with its cookie.

    Raises:
        StartFailed: it does not answer, or its screen has another size.
    """
    from worker.display import connection  # noqa: PLC0415 - not needed to launch

    try:
        with connection.connect(display, authority) as server:
            screen = server.screen()
            found = (screen.width_in_pixels, screen.height_in_pixels, screen.root_depth)
    except connection.Failed as error:
        raise StartFailed("xvfb", f"display {display} does not answer: {error}") from error
    if found != (WIDTH_PX, HEIGHT_PX, DEPTH_BITS):
        raise StartFailed("xvfb", f"its screen is {found}, not {(WIDTH_PX, HEIGHT_PX, DEPTH_BITS)}")


def remove_socket(display: str) -> None:
    """Remove the socket of a server that was killed; that of a running server is never removed.

    Nor is that of a reserved display while a process holds it. A server owns a display number by
    binding its abstract socket. Binding it here while the file is removed prevents a server that
    starts at this moment from using the number.
    """
    path = f"/tmp/.X11-unix/X{display.removeprefix(':')}"  # noqa: S108 - the X server's own directory
    with _holding(f"\0{path}") as held:
        if held and not _alive(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - a socket, not a file


@contextlib.contextmanager
def _holding(address: str) -> Iterator[bool]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as holder:
        try:
            holder.bind(address)
        except OSError:
            yield False
        else:
            yield True


def _alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True
