"""Keeping secrets from other processes of the same user: the task's, above all."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def hide_from_peers() -> None:
    """Keep other processes of the same user from reading this one's memory and environment.

    prctl(2), PR_SET_DUMPABLE: /proc/<pid>/environ and mem become root's.
    """
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def scrub_environment(name: str) -> None:
    """Remove a variable from `os.environ`, and its bytes from /proc/<pid>/environ (proc(5))."""
    _LIBC.getenv.restype = ctypes.c_void_p
    address = _LIBC.getenv(name.encode())
    if address:
        ctypes.memset(address, 0, len(os.environ.get(name, "").encode()))
    os.environ.pop(name, None)
