"""Starts a program; needs no event loop, so that it can be used before one is imported."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from typing import TYPE_CHECKING

from worker.linux import set_death_signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    death_signal: int,
    output: Path | None = None,
    pass_fds: Sequence[int] = (),
    descriptor_limit: int | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program with an empty stdin; its stdout and stderr are one pipe or file.

    It leads a session and process group of its own.

    Args:
        argv: the program and its arguments; never a shell.
        env: its whole environment.
        death_signal: sent to it by the kernel if this process dies first.
        output: the file that gets its stdout and stderr; default: a pipe.
        pass_fds: descriptors that it inherits.
        descriptor_limit: its soft NOFILE limit; default: this process's.
        cwd: its working directory; default: this process's.

    Raises:
        OSError: it cannot be executed.
    """

    def in_child() -> None:
        set_death_signal(death_signal)
        if descriptor_limit is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(descriptor_limit, hard), hard))

    with contextlib.ExitStack() as stack:
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stack.enter_context(output.open("wb")) if output else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=in_child,  # noqa: PLW1509 - two system calls, no locks taken
        )
