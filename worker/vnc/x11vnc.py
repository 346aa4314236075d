"""x11vnc: reads the display and speaks RFB on a Unix socket; it has no TCP port at all."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Final

from worker.errors import StartFailed
from worker.rfb.client_filter import PROTOCOL_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READY_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.005
_SCREEN_POLL_MS: Final = 5
_UPDATE_DELAY_MS: Final = 0  # 1 already costs a whole further turn of its loop
_NOT_ASKED: Final = ("-noxrandr", "-noxinerama", "-nofbpm", "-noxrecord")

# What the priming client says and hears (RFC 6143, section 7.1).
_SECURITY_TYPES_BYTES: Final = 2
_SECURITY_NONE: Final = b"\x01"
_SECURITY_RESULT_BYTES: Final = 4
_SHARED: Final = b"\x01"
_SERVER_INIT_BYTES: Final = 24  # without the name, whose length is its last field
_LENGTH_BYTES: Final = 4
_ANY_BYTES: Final = 65536


def command(
    display: str, authority: Path, unix_socket: Path, *, control: bool = False
) -> list[str]:
    """The command line.

    Args:
        display: for example `:7`.
        authority: the display's cookie file.
        unix_socket: where it listens.
        control: whether its clients may type, point, paste, and hear what is copied.
    """
    # What is copied is the clipboard's text; what is merely selected stays where it is.
    role = ["-noprimary"] if control else ["-viewonly", "-nosel"]
    return [
        # It would take no clipboard text in its first seconds, while a login window might go.
        *(("env", "X11VNC_AVOID_WINDOWS=never") if control else ()),
        "x11vnc",
        *("-display", display),
        *("-auth", str(authority)),
        # Both ports 0 and no -localhost: else it listens on [::]:5900, or refuses its own socket.
        *("-rfbport", "0", "-rfbportv6", "0", "-unixsock", str(unix_socket)),
        *role,
        *("-shared", "-forever", "-nopw"),  # who may connect is the stream server's business
        *("-norc", "-nocmds", "-noremote"),  # no ~/.x11vncrc, no commands, no remote control
        # Its own line speed measurement freezes the first viewer for seconds.
        *("-speeds", "lan"),
        *("-wait", str(_SCREEN_POLL_MS), "-defer", str(_UPDATE_DELAY_MS)),
        *("-nodpms", "-nobell"),
        # Questions that it asks the X server over and over: the screen's size never changes.
        *_NOT_ASKED,
        # On a still picture it would nap, and show the next change up to a second late.
        *("-nonap", "-sb", "0"),
        "-quiet",
    ]


async def ready(unix_socket: Path, *, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Wait until it accepts connections.

    Raises:
        StartFailed: it did not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not accepts(unix_socket):
        if time.monotonic() > deadline:
            raise StartFailed("x11vnc", f"it did not listen on {unix_socket} in time")
        await asyncio.sleep(_POLL_S)


def accepts(unix_socket: Path) -> bool:
    """Whether a connection is accepted now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(unix_socket))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True


async def prime(
    unix_socket: Path,
    *,
    welcomed: Callable[[], None] = lambda: None,
    heard: Callable[[], None] = lambda: None,
) -> None:
    """Be a client that only sits there, from x11vnc's start to its end.

    Without any client x11vnc looks for new ones five times a second, and for half a second after
    each new one it does not start to watch the display for damage, if it is not watching already.
    So the first viewer would wait, and then see nothing for half a second.

    Args:
        unix_socket: where x11vnc listens.
        welcomed: called when x11vnc has let it in, and so has begun to watch the display.
        heard: called whenever it says something on its own, as it does about copied text.
    """
    reader, writer = await asyncio.open_unix_connection(str(unix_socket))
    try:
        writer.write(PROTOCOL_VERSION)
        await reader.readexactly(len(PROTOCOL_VERSION) + _SECURITY_TYPES_BYTES)
        writer.write(_SECURITY_NONE)
        await reader.readexactly(_SECURITY_RESULT_BYTES)
        writer.write(_SHARED)
        init = await reader.readexactly(_SERVER_INIT_BYTES)
        await reader.readexactly(int.from_bytes(init[-_LENGTH_BYTES:], "big"))
        welcomed()
        while await reader.read(_ANY_BYTES):  # it asks for nothing, and so gets little
            heard()
    except (OSError, EOFError):
        return  # x11vnc is gone; the next one is primed anew
    finally:
        writer.close()
