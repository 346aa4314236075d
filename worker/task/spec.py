"""What a task's process gets, and the start of the process of a function."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.process.spawn import spawn
from worker.surroundings.interpreter import command
from worker.task.target import Command, Function, Target

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from worker.task.messages import Run

_DRIVER: Final = "PLAYWRIGHT_NODEJS_PATH"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What a task's process gets.

    Attributes:
        environ: its whole environment except DISPLAY and XAUTHORITY.
        launch_options: the arguments of Playwright's `launch`.
        log: the file that its output is copied to, up to `log_max_bytes`.
        ruleset: Landlock rules that restrict the process; None: it is not confined.
    """

    target: Target
    inputs: Mapping[str, Any]
    environ: Mapping[str, str]
    launch_options: Mapping[str, Any]
    log: Path
    log_max_bytes: int
    ruleset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedChild:
    """A running `worker.task.child`, the session's end of its socket, and bytes yet to be sent."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    unsent: bytes


def with_driver(environ: Mapping[str, str]) -> dict[str, str]:
    """A task's environment, in which Playwright starts its driver by `playwright-node`."""
    node = Path(__file__).with_name("playwright-node")
    own = {_DRIVER: str(node)} if os.access(node, os.X_OK) else {}
    return {**own, **environ}


def start_child(spec: TaskSpec) -> StartedChild | None:
    """Start the process of a function, which loads what it needs; None for a COMMAND.

    It does not block, and needs no event loop.
    """
    if isinstance(spec.target, Command):
        return None
    session_end, task_end = socket.socketpair()
    with task_end:
        descriptor = task_end.fileno()
        process = spawn(
            command("worker.task.child", str(descriptor), options=("-u",)),
            env=spec.environ,
            death_signal=signal.SIGKILL,
            pass_fds=[descriptor],
            ruleset=spec.ruleset,
        )
    from worker.wire import encode  # noqa: PLC0415 - 5 ms, while the process starts

    line = encode(run_message(spec, spec.target)) + b"\n"
    session_end.setblocking(False)
    try:
        sent = session_end.send(line)
    except OSError:  # the process has ended already, which the first read reports
        sent = len(line)
    return StartedChild(process=process, socket=session_end, unsent=line[sent:])


def run_message(spec: TaskSpec, target: Function) -> Run:
    """The first message to the process of a function."""
    from worker.task.messages import Run  # noqa: PLC0415 - the same

    return Run(
        file=str(target.file),
        module=target.module,
        name=target.name,
        is_async=target.is_async,
        parameters=None if target.parameters is None else tuple(sorted(target.parameters)),
        inputs=dict(spec.inputs),
        launch_options=dict(spec.launch_options),
    )
