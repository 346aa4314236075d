"""Checks settings, target and machine before any process is started; the result is a Plan."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker import artifacts, net
from worker.display import reserved
from worker.errors import ProgramMissing, SettingError
from worker.linux import hide_from_peers, landlock_abi, scrub_environment
from worker.programs import DISPLAY_PROGRAMS
from worker.session.plan import Notice, Plan
from worker.settings import PREFIX, unknown_variables
from worker.settings.run import RunSettings, secret_variables
from worker.stream import tokens
from worker.surroundings import temporary
from worker.task import browser, file_urls, sandbox, target
from worker.task.confinement import Confinement, home, readable
from worker.task.target import Command

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from worker.task.target import Target

_BACKLOG: Final = 128


def make(settings: RunSettings, text: str | None, command: Sequence[str] | None) -> Plan:
    """Check everything, listen on the stream's port, and create the artifacts folder.

    Args:
        settings: the worker's settings.
        text: TARGET, or None.
        command: COMMAND, or None.

    Raises:
        UsageError: what to change, in one line.
    """
    key = stream_key(settings)
    hide_from_peers()
    for name in secret_variables():
        scrub_environment(name)
    working_folder_exists = _leave_removed_folder()
    chosen = target.function(text) if text is not None else target.command(command or ())
    for program in DISPLAY_PROGRAMS:
        if shutil.which(program) is None:
            raise ProgramMissing(program)
    chromium = browser.find(settings.chromium)
    launch, notices = _launch(settings, chromium)
    temporary_dir = temporary.parent(os.environ)
    novnc_dir = settings.novnc_dir if settings.serves_debug_page else None
    if novnc_dir is not None and not (novnc_dir / "core/rfb.js").is_file():
        raise ProgramMissing("noVNC", f"no core/rfb.js in {novnc_dir}")
    exception = _exception(allowed=settings.allow_file_urls)
    confinement = None
    if settings.confine:
        chromium_files = [chromium.resolve().parent, *exception]
        confinement = _confinement(settings, chosen, chromium_files, temporary_dir)
    folder = settings.artifacts_dir or Path("artifacts") / settings.task_id
    if not (working_folder_exists or folder.is_absolute()):
        raise SettingError(
            "the working directory was removed; change to another one, or give --artifacts-dir an "
            "absolute path"
        )
    display = reserved.inherited(settings.display_fds) if settings.display_fds else None
    listener = _listener(settings)
    try:
        kept = artifacts.prepare(folder)
    except SettingError:
        listener.close()
        raise
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return Plan(
        task_id=settings.task_id,
        target=chosen,
        inputs=settings.inputs,
        temporary_dir=temporary_dir,
        environ=environ,
        task_environ={
            "PYTHONUNBUFFERED": "1",
            f"{PREFIX}CHROMIUM": str(chromium),
            f"{PREFIX}TASK_ID": settings.task_id,
            f"{PREFIX}ARTIFACTS_DIR": str(kept.folder),
            f"{PREFIX}INPUTS": json.dumps(settings.inputs),
        },
        launch=launch,
        notices=(*_unknown(), *notices),
        timeout_s=settings.timeout_s,
        hold_s=settings.hold_s,
        artifacts=kept,
        log_max_bytes=settings.log_max_bytes,
        confinement=confinement,
        termination_log=settings.termination_log,
        listener=listener,
        display=display,
        stream_key=key,
        novnc_dir=novnc_dir,
        allowed_origins=settings.allowed_origins,
        max_viewers=settings.max_viewers,
        trusted_proxies=settings.trusted_proxies,
    )


def _leave_removed_folder() -> bool:
    """Change to `/` if the working directory was removed; programs may not start there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        os.chdir("/")
        return False
    return True


def _unknown() -> Iterator[Notice]:
    for name in unknown_variables(RunSettings, os.environ):
        yield Notice(event="setting.unknown", fields={"name": name})


def _launch(settings: RunSettings, chromium: Path) -> tuple[dict[str, Any], tuple[Notice, ...]]:
    """Playwright's launch options, and notices of what they do without."""
    notices = []
    refusal = sandbox.refusal() if settings.chromium_sandbox != "off" else None
    sandboxed = browser.sandboxed(settings.chromium_sandbox, refusal)
    if refusal is not None:
        notices.append(Notice(event="sandbox.disabled", fields={"why": refusal}))
    free_bytes = browser.shm_free_bytes()
    shm = free_bytes >= browser.SHM_MIN_BYTES
    if not shm:
        fields = {
            "free_bytes": free_bytes,
            "wanted_bytes": browser.SHM_MIN_BYTES,
            "why": "shared memory is small, so Chromium uses slower files instead; "
            "in Docker add --shm-size=1g",
        }
        notices.append(Notice(event="shm.avoided", fields=fields))
    options = browser.launch_options(str(chromium), sandbox=sandboxed, shm=shm)
    return options, tuple(notices)


def _listener(settings: RunSettings) -> socket.socket:
    """The stream's socket: an inherited one, or a new one."""
    if settings.listener_fd is not None:
        return net.inherited(settings.listener_fd)
    return net.listen(settings.host, settings.port, backlog=_BACKLOG)


def _exception(*, allowed: bool) -> list[Path]:
    try:
        created = file_urls.apply(allowed=allowed)
    except OSError as error:
        raise SettingError(
            f"WORKER_ALLOW_FILE_URLS: cannot write {error.filename}: {error.strerror}; "
            "with `docker run --read-only`, add --tmpfs /tmp"
        ) from error
    return [created] if created is not None else []


def _confinement(
    settings: RunSettings, target: Target, browser: Sequence[Path], temporary_dir: Path
) -> Confinement:
    if not landlock_abi():
        raise SettingError(
            "WORKER_CONFINE: the kernel offers no Landlock, or a seccomp profile forbids it; "
            "enable it (`lsm=landlock,…` on the kernel's command line), or unset the variable"
        )
    read = [*readable(os.environ), *browser, *settings.confine_read]
    here = Path.cwd()
    if here not in (home(os.environ), Path(here.anchor)):
        read.append(here)
    if isinstance(target, Command):
        program = shutil.which(target.argv[0]) or target.argv[0]
        read.append(Path(os.path.realpath(program)).parent)
    else:
        read += [target.file.parent, target.file]
    hidden = (*settings.confine_hide, temporary_dir)
    return Confinement(read=tuple(read), write=settings.confine_write, hidden=hidden)


def stream_key(settings: RunSettings) -> bytes:
    """The task's stream key: configured, derived from the master secret, or random."""
    if settings.stream_key is not None:
        return bytes.fromhex(settings.stream_key.get_secret_value())
    if settings.stream_secret is not None:
        master = settings.stream_secret.get_secret_value().encode()
        return tokens.derive_key(master, settings.task_id)
    return tokens.random_key()
