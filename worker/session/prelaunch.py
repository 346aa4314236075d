"""Starts the task's process and supervisord as soon as everything is checked.

They load what they need while the session's own modules are still being imported. So this module
and what it imports are the standard library and light modules of ours only.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from worker.display import xvfb
from worker.errors import StartFailed
from worker.process import session_folder, supervisord_config
from worker.process.program import Program
from worker.surroundings import interpreter, temporary
from worker.task import confinement
from worker.task.spec import StartedChild, TaskSpec, start_child, with_driver

if TYPE_CHECKING:
    from pathlib import Path

    from worker.display.reserved import ReservedDisplay
    from worker.process.supervisord_config import StartedSupervisord
    from worker.session.plan import Plan

AUTHORITY: Final = "Xauthority"
DISPLAY_NUMBER: Final = "xvfb.display"
STREAM_SOCKET: Final = "stream.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prelaunched:
    """What was started already.

    Attributes:
        began: when, by time.monotonic().
        folder: the session's private folder.
        task: what the task's process gets.
        child: the process of the task's function; None for a COMMAND.
        supervisord: it has started no program yet.
        xvfb: the X server's program.
        websockify: the stream server's program.
    """

    began: float
    folder: Path
    task: TaskSpec
    child: StartedChild | None
    supervisord: StartedSupervisord
    xvfb: Program
    websockify: Program


def prelaunch(plan: Plan) -> Prelaunched:
    """Make the session's folder, and start the task's process and supervisord.

    Raises:
        StartFailed: a file cannot be written, for example because the disk is full.
    """
    began = time.monotonic()
    folder = None
    try:
        folder = temporary.make(plan.temporary_dir)
        return _start(plan, began, folder)
    except OSError as error:  # what was started ends with this process
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise StartFailed("the session", str(error)) from error


def _start(plan: Plan, began: float, folder: Path) -> Prelaunched:
    session_folder.lock(folder)
    tmp = folder / session_folder.TMP
    tmp.mkdir()
    authority = folder / AUTHORITY
    xvfb.write_authority(authority)
    task = _task(plan, tmp, authority)
    child = start_child(task)
    os.mkfifo(folder / DISPLAY_NUMBER)
    display = _passable(plan.display)
    server = Program(
        name="xvfb",
        command=xvfb.command(authority, display),
        restart=False,
        stdout=DISPLAY_NUMBER,
    )
    websockify = Program(
        name="websockify",
        command=interpreter.command("worker.stream.server", str(folder / STREAM_SOCKET)),
        restart=True,
    )
    # Its own TMPDIR: Python writes a file to the temporary folder at its first use, and a process
    # that is killed at that moment leaves it.
    environ = {
        **plan.environ,
        "XAUTHORITY": str(authority),
        "TMPDIR": str(tmp),
    }
    inherited = display.descriptors if display else ()
    supervisord = supervisord_config.start(folder, environ, (server, websockify), inherited)
    for each in inherited:
        os.close(each)
    return Prelaunched(
        began=began,
        folder=folder,
        task=task,
        child=child,
        supervisord=supervisord,
        xvfb=server,
        websockify=websockify,
    )


def _passable(display: ReservedDisplay | None) -> ReservedDisplay | None:
    if display is None:
        return None
    moved = tuple(map(supervisord_config.passable, display.descriptors))
    return replace(display, descriptors=moved)


def _task(plan: Plan, tmp: Path, authority: Path) -> TaskSpec:
    environ = with_driver({**plan.environ, **plan.task_environ, **temporary.variables(tmp)})
    ruleset = None
    if plan.confinement is not None:
        environ = confinement.environment(environ, tmp)
        own = (tmp, plan.artifacts.folder)
        ruleset = confinement.ruleset(plan.confinement, own=own, cookie=authority)
    return TaskSpec(
        target=plan.target,
        inputs=plan.inputs,
        environ=environ,
        launch_options=plan.launch,
        log=plan.artifacts.log,
        log_max_bytes=plan.log_max_bytes,
        ruleset=ruleset,
    )
