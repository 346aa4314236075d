"""Executes Xvfb on inherited sockets: `python -I -S execute_xvfb.py DESCRIPTORS XVFB [ARG]...`.

It is executed by its path, needs the standard library only, and becomes Xvfb, which takes sockets
as a service of systemd does (sd_listen_fds(3)): from descriptor 3 on, if LISTEN_PID is its own id.
"""

from __future__ import annotations

import os
import sys
from _socket import socket  # `socket` itself imports for 6 ms before Xvfb can start
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_FIRST: Final = 3
_BACKLOG: Final = 128


def main() -> None:
    """Become Xvfb."""
    descriptors = [int(each) for each in sys.argv[1].split(",")]
    _arrange(descriptors)
    os.environ |= {"LISTEN_FDS": str(len(descriptors)), "LISTEN_PID": str(os.getpid())}
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is wanted


def _arrange(descriptors: Sequence[int]) -> None:
    """Move listening sockets to the descriptors from 3 on."""
    for number, descriptor in enumerate(descriptors, _FIRST):
        # To clients, the server's process is the one that called listen(2) last (SO_PEERCRED).
        socket(fileno=os.dup(descriptor)).listen(_BACKLOG)
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)


if __name__ == "__main__":
    main()
