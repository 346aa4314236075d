"""The plan: settings, target and machine, all checked before any process is started."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import artifacts
from worker.errors import PortInUse, ProgramMissing, SettingError
from worker.linux import hide_from_peers, scrub_environment
from worker.programs import DISPLAY_PROGRAMS
from worker.session.plan import Notice, Plan
from worker.settings import PREFIX, SECRET_NAMES, Settings
from worker.stream import tokens
from worker.task import browser, sandbox, target

if TYPE_CHECKING:
    from collections.abc import Sequence

_BACKLOG = 128


def make(settings: Settings, text: str | None, command: Sequence[str] | None) -> Plan:
    """Check everything.

    Args:
        settings: what the user set.
        text: TARGET, or None.
        command: COMMAND, or None.

    Raises:
        UsageError: one line that says what to change.
    """
    key = stream_key(settings)
    hide_from_peers()
    for name in SECRET_NAMES:
        scrub_environment(PREFIX + name.upper())
    chosen = target.function(text) if text is not None else target.command(command or ())
    for program in DISPLAY_PROGRAMS:
        if shutil.which(program) is None:
            raise ProgramMissing(program)
    chromium = browser.find(settings.chromium)
    launch, notices = _launch(settings, chromium)
    novnc_dir = settings.novnc_dir if settings.serves_debug_page else None
    if novnc_dir is not None and not (novnc_dir / "core/rfb.js").is_file():
        raise ProgramMissing("noVNC", f"no core/rfb.js in {novnc_dir}")
    listener = _listen(settings.host, settings.port)
    folder = settings.artifacts_dir or Path("artifacts") / settings.task_id
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
        environ=environ,
        task_environ={
            "PYTHONUNBUFFERED": "1",
            f"{PREFIX}CHROMIUM": str(chromium),
            f"{PREFIX}TASK_ID": settings.task_id,
            f"{PREFIX}ARTIFACTS_DIR": str(kept.folder),
            f"{PREFIX}INPUTS": json.dumps(settings.inputs),
        },
        launch=launch,
        notices=notices,
        timeout_s=settings.timeout_s,
        hold_s=settings.hold_s,
        artifacts=kept,
        termination_log=settings.termination_log,
        listener=listener,
        stream_key=key,
        novnc_dir=novnc_dir,
        allowed_origins=settings.allowed_origins,
        max_viewers=settings.max_viewers,
        trusted_proxies=settings.trusted_proxies,
    )


def _launch(settings: Settings, chromium: Path) -> tuple[dict[str, Any], tuple[Notice, ...]]:
    """How the browser is launched, and what of it is less than it should be."""
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
            "why": "shared memory is small, so Chromium uses slower files in its place; "
            "in Docker give the container --shm-size=1g",
        }
        notices.append(Notice(event="shm.avoided", fields=fields))
    options = browser.launch_options(str(chromium), sandbox=sandboxed, shm=shm)
    return options, tuple(notices)


def stream_key(settings: Settings) -> bytes:
    """The task's stream key: given, derived from the master secret, or random."""
    if settings.stream_key is not None:
        return bytes.fromhex(settings.stream_key.get_secret_value())
    if settings.stream_secret is not None:
        master = settings.stream_secret.get_secret_value().encode()
        return tokens.derive_key(master, settings.task_id)
    return tokens.random_key()


def netloc(settings: Settings) -> str:
    """The stream's host and port as a URL has them."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except (socket.gaierror, UnicodeError) as error:
        raise SettingError(f"--host: {host!r} is no address of this machine: {error}") from error
    family, _, _, _, address = found[0]
    try:
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise PortInUse(host, port, why) from error
