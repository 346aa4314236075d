"""Programs that the API starts: its event loop goes on meanwhile, see `linux.posix_spawn`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from worker import linux
from worker.api import precedence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STDIN, _STDOUT, _STDERR = range(3)
_FOREVER_MS: Final = -1


class TookTooLong(Exception):
    """A program was killed because it ran for longer than it may."""


@dataclass(slots=True)
class Program:
    """A running or ended child of this process.

    Attributes:
        pid: its process.
        returncode: its exit code, or -N if signal N ended it; None until that is known.
    """

    pid: int
    returncode: int | None = None
    _reaping: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def poll(self) -> int | None:
        """The returncode, if it has ended; does not wait."""
        with self._reaping:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        """Wait for its end; returns the returncode."""
        while (returncode := self.poll()) is None:
            _ends_within(self.pid, None)
        return returncode


def start(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    inherited: Sequence[int] = (),
    folder: str | None = None,
) -> Program:
    """Start a program that leads a session of its own.

    Args:
        argv: the program and its arguments; never a shell.
        environ: its whole environment.
        stdin: a descriptor; `stdout` and `stderr` too.
        stdout: see above.
        stderr: see above.
        inherited: further descriptors that it gets.
        folder: its working directory; default: this process's.

    Raises:
        OSError: it cannot be executed.
    """
    descriptors = {_STDIN: stdin, _STDOUT: stdout, _STDERR: stderr}
    descriptors |= {each: each for each in inherited}
    return Program(
        linux.posix_spawn(argv, environ, descriptors=descriptors, folder=folder, new_session=True)
    )


def run(
    argv: Sequence[str], content: bytes = b"", *, limit_s: float | None = None
) -> tuple[int, bytes]:
    """Run a program to its end; returns its returncode and what it wrote to stdout.

    Args:
        argv: the program and its arguments; never a shell.
        content: what it reads from stdin.
        limit_s: kill it after this time; default: never.

    Raises:
        OSError: it cannot be executed.
        TookTooLong: it was killed.
    """
    with contextlib.ExitStack() as stack:
        stdin, stdout = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout"))
        stack.callback(os.close, stdin)
        stack.callback(os.close, stdout)
        with open(stdin, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(stdin, 0, os.SEEK_SET)
        program = start(argv, os.environ, stdin=stdin, stdout=stdout, stderr=_STDERR)
        precedence.lower_program(program.pid)
        if not _ends_within(program.pid, limit_s):
            os.kill(program.pid, signal.SIGKILL)
            program.wait()
            raise TookTooLong
        returncode = program.wait()
        size = os.lseek(stdout, 0, os.SEEK_END)
        return returncode, os.pread(stdout, size, 0)


def _ends_within(pid: int, limit_s: float | None) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True  # another thread has reaped it
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        return bool(waiting.poll(_FOREVER_MS if limit_s is None else limit_s * 1000))
    finally:
        os.close(descriptor)
