"""The job: what a task's process needs to know, and the launch of one that runs a function."""

from __future__ import annotations

import json
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.process.spawn import spawn
from worker.task.target import Command, Function, Target

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What a task's process needs to know; `environ` is its whole environment but for DISPLAY."""

    target: Target
    inputs: Mapping[str, Any]
    environ: Mapping[str, str]
    launch: Mapping[str, Any]
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedChild:
    """A running `worker.task.child`, our end of its socket, and what is still to be sent."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    unsent: bytes


def launch(job: TaskSpec) -> StartedChild | None:
    """Start the process of a function, which loads what it needs; None for a COMMAND."""
    if isinstance(job.target, Command):
        return None
    ours, theirs = socket.socketpair()
    with theirs:
        descriptor = theirs.fileno()
        process = spawn(
            [sys.executable, "-m", "worker.task.child", str(descriptor)],
            env=job.environ,
            death_signal=signal.SIGKILL,
            pass_fds=[descriptor],
        )
    message = _message(job, job.target)
    ours.setblocking(False)
    try:
        sent = ours.send(message)
    except OSError:  # it has ended already, as whoever reads will see
        sent = len(message)
    return StartedChild(process=process, socket=ours, unsent=message[sent:])


def _message(job: TaskSpec, target: Function) -> bytes:
    fields: dict[str, Any] = {
        "file": str(target.file),
        "module": target.module,
        "name": target.name,
        "is_async": target.is_async,
        "wants": sorted(target.wants) if target.wants is not None else None,
        "inputs": job.inputs,
        "launch": job.launch,
    }
    return json.dumps({"kind": "job", "job": fields}).encode() + b"\n"
