"""The launch: what starts the moment that all is checked, while the session's code still loads."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker.display import xvfb
from worker.process import supervisord_config
from worker.process.supervisord_config import Program
from worker.task import spec
from worker.task.spec import StartedChild, TaskSpec

if TYPE_CHECKING:
    import subprocess

    from worker.session.plan import Plan

AUTHORITY: Final = "Xauthority"
CONTROL_SOCKET: Final = "control.sock"
XVFB_DISPLAY: Final = "xvfb.display"
_TMP: Final = "tmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """What runs already.

    Attributes:
        began: the moment by time.monotonic().
        folder: the session's private folder.
        task: the task's.
        host: the process of the task's function; None for a COMMAND.
        supervisord: it runs nothing yet.
        programs: those that it knows: Xvfb and websockify, which need no display.
    """

    began: float
    folder: Path
    task: TaskSpec
    host: StartedChild | None
    supervisord: subprocess.Popen[bytes]
    programs: tuple[Program, ...]


def launch(plan: Plan) -> Launched:
    """Make the session's folder, and start the task's process and supervisord."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="worker-"))  # 0700
    (folder / _TMP).mkdir()
    task = TaskSpec(
        target=plan.target,
        inputs=plan.inputs,
        environ={**plan.environ, **plan.task_environ, "TMPDIR": str(folder / _TMP)},
        launch=plan.launch,
        log=plan.artifacts.log,
    )
    host = spec.launch(task)
    authority = folder / AUTHORITY
    xvfb.write_authority(authority)
    os.mkfifo(folder / XVFB_DISPLAY)
    programs = (
        Program(
            name="xvfb",
            command=xvfb.command(authority),
            restart=False,
            stdout=folder / XVFB_DISPLAY,
        ),
        Program(
            name="websockify",
            command=[sys.executable, "-m", "worker.stream", str(folder / CONTROL_SOCKET)],
            restart=True,
        ),
    )
    environ = {**plan.environ, "XAUTHORITY": str(authority)}
    return Launched(
        began=began,
        folder=folder,
        task=task,
        host=host,
        supervisord=supervisord_config.launch(folder, environ, programs),
        programs=programs,
    )
