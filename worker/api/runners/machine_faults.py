"""Errors of the machine: they pass, and the task in which they occurred did not cause them."""

from __future__ import annotations

import errno
from typing import Final

from worker.api.runners.protocol import RunnerUnavailable

_ERRNOS: Final = frozenset(
    {
        *(errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EINTR),
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EBUSY, errno.ESTALE),
        *(errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO, errno.ENOTCONN),
    }
)
# The file itself can cause these: a socket, a device, one with a lease (fcntl(2)), a mount that has
# ended (FUSE).
_OF_ONE_FILE: Final = frozenset({errno.ENXIO, errno.ENODEV, errno.EAGAIN, errno.ENOTCONN})
_NO_THREAD: Final = "start new thread"
_WHY_MAX_CHARS: Final = 500


def is_machine_fault(error: BaseException) -> bool:
    """Whether the machine (or the engine or cluster) caused the error, so that a retry may succeed.

    Such as a full disk, a read-only or failing one, no descriptors, memory, processes or threads.
    """
    if isinstance(error, OSError):
        return error.errno in _ERRNOS
    if isinstance(error, RuntimeError):  # CPython has no class of its own for it
        return _NO_THREAD in describe(error)
    return isinstance(error, (MemoryError, RunnerUnavailable))


def prevents_reading(error: OSError) -> bool:
    """`is_machine_fault` of reading a file that a task may have replaced."""
    return is_machine_fault(error) and error.errno not in _OF_ONE_FILE


def describe(error: BaseException) -> str:
    """An error's type and text in one line of at most 500 characters."""
    try:
        text = str(error)
    except Exception:  # the error's class may be a task's or a library's
        text = "its text cannot be read"
    kind = type(error).__name__
    line = " ".join(f"{kind}: {text[:_WHY_MAX_CHARS]}".split()) if text else kind
    return line[:_WHY_MAX_CHARS]
