"""What a process inherits from the one that started it, set to the same state everywhere.

Descriptors 0 to 2 are open, so that no file or socket gets one of these numbers. No signal is
blocked, and ignored ones have their default effect again: with SIGCHLD ignored (`trap '' CHLD`) the
kernel reaps children itself, and no exit code is left. Text is UTF-8.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# SIGHUP is ignored by nohup(1). Python itself ignores SIGPIPE and SIGXFSZ, and restores both in its
# children. The rest are the job control of a shell.
_STAY_IGNORED: Final = frozenset(
    {
        *(signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ),
        *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    }
)


_STDERR: Final = 2


def normalize() -> None:
    """Set this process to that state; the first call of a program."""
    open_descriptors()
    reset_signals()
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - for the whole process
    sys.stdout = _utf8(sys.stdout) if sys.stdout else _writer(io.FileIO(1, "w", closefd=False))
    sys.stderr = _writer(_Lossy(2, "w", closefd=False))


def open_descriptors() -> None:
    """Open descriptors 0 to 2 on /dev/null where they are closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # open(2) returns the lowest free number, which is this one: those below are open.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def keep_private() -> None:
    """Let no program that this process starts get what it was not meant to.

    Descriptors above 2 that this process inherited are not inherited further, and new files are
    accessible for their user only.
    """
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a list; the folder is closed then
        if int(name) > _STDERR:
            with contextlib.suppress(OSError):  # that of the list
                os.set_inheritable(int(name), False)
    os.umask(0o077)


def reset_signals() -> None:
    """Unblock all signals, and give ignored ones their default effect."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - _STAY_IGNORED:
        if signal.getsignal(number) is signal.SIG_IGN:
            with contextlib.suppress(OSError):  # the C library uses two real-time signals itself
                signal.signal(number, signal.SIG_DFL)


def discard(stream: TextIO, descriptor: int) -> None:
    """Discard what a stream still holds: its descriptor becomes /dev/null."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
    with contextlib.suppress(OSError, ValueError):
        stream.flush()


class _Lossy(io.FileIO):
    """A file that drops what cannot be written: a message must not be the cause of a failure."""

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        try:
            # None: the descriptor is non-blocking, set so by another process that uses it.
            while (written := super().write(data)) is None:
                poll = select.poll()
                poll.register(self, select.POLLOUT)
                poll.poll()
        except OSError:
            return size
        return written


def _writer(raw: io.RawIOBase) -> TextIO:
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


def _utf8(stream: TextIO) -> TextIO:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream
