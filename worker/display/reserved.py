"""Displays whose sockets exist before their X server, so that no other process can take the name.

The process that creates the sockets keeps them, and passes them to one X server after the other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

NUMBERS: Final = range(65_536 - 6000)  # of displays that Xvfb can have: 6000 + n is a port
SOCKETS: Final = "/tmp/.X11-unix"  # noqa: S108 - the X server's own directory
_BACKLOG: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservedDisplay:
    """A display's sockets, created by the process that started this one.

    Attributes:
        number: of the display.
        descriptors: of its abstract socket and, if there is one, of that in the file system.
    """

    number: int
    descriptors: tuple[int, ...]


def path(number: int) -> str:
    """The socket of a display; with a NUL byte before it, the abstract one."""
    return f"{SOCKETS}/X{number}"


def reserve(number: int, *, with_file: bool) -> list[socket.socket]:
    """Listen as a display.

    Args:
        number: of the display.
        with_file: also on the socket in the file system, which some clients try first.

    Raises:
        OSError: it is in use, or the file is another user's.
    """
    with contextlib.ExitStack() as unused:
        sockets = [unused.enter_context(_bound(f"\0{path(number)}"))]
        if with_file:
            sockets.append(unused.enter_context(_bound_file(number)))
        for each in sockets:
            each.listen(_BACKLOG)
        unused.pop_all()
    return sockets


def release(sockets: Sequence[socket.socket]) -> None:
    """Close the sockets of a display that no X server uses, and remove its file."""
    for each in sockets:
        name = each.getsockname()
        if isinstance(name, str):
            Path(name).unlink(missing_ok=True)
        each.close()


def inherited(descriptors: Sequence[int]) -> ReservedDisplay:
    """The display of inherited sockets.

    Raises:
        SettingError: they are not the listening sockets of one display.
    """
    names = [_name(each) for each in descriptors]
    digits = re.fullmatch(r".*X(\d{1,5})", names[0]) if names else None
    if digits is not None:
        number = int(digits[1])
        if names in ([f"\0{path(number)}"], [f"\0{path(number)}", path(number)]):
            for each in descriptors:
                os.set_inheritable(each, False)
            return ReservedDisplay(number=number, descriptors=tuple(descriptors))
    text = ",".join(map(str, descriptors))
    raise SettingError(
        f"WORKER_DISPLAY_FDS: {text} are not the listening sockets of a display; "
        f"pass those of {SOCKETS}/X<n>"
    )


def _name(descriptor: int) -> str:
    """The name of a listening Unix socket; empty if the descriptor is none."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as found:
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            name = found.getsockname() if listens and found.family == socket.AF_UNIX else ""
    except OSError:
        return ""
    return os.fsdecode(name)


def _bound(address: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _bound_file(number: int) -> socket.socket:
    """Bind the file; one that was left by a process of this user is replaced."""
    folder = Path(SOCKETS)
    if not folder.exists():
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o1777)
    try:
        return _bound(path(number))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        status = os.lstat(path(number))
        if status.st_uid != os.geteuid() or not stat.S_ISSOCK(status.st_mode) or _answers(number):
            raise
        Path(path(number)).unlink()
        return _bound(path(number))


def _answers(number: int) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is one of a living process
        try:
            probe.connect(path(number))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True
