"""The config file of supervisord and its programs, and the start of supervisord."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING, Final

from worker.process.spawn import spawn
from worker.surroundings.interpreter import command

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from worker.process.program import Program

_DESCRIPTOR_LIMIT: Final = 1024  # x11vnc walks every descriptor up to the limit at each connect

# Files are relative to supervisord's working directory: no value can contain ` ;`, which begins a
# comment. It refuses to start if a hard limit is less than minfds or minprocs, and closes the
# descriptors below minfds in its programs.
_SUPERVISORD: Final = """\
[supervisord]
nodaemon=true
minfds=64
minprocs=1
logfile=supervisord.log
pidfile=supervisord.pid
childlogdir=.

[unix_http_server]
file=supervisor.sock
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://%(here)s/supervisor.sock
"""

# startsecs=0: a program that dies at once is restarted at once; the session limits how often.
_PROGRAM: Final = """
[program:{name}]
command={command}
stdout_logfile={stdout}
stdout_logfile_maxbytes=0
stderr_logfile={name}.log
stderr_logfile_maxbytes=1MB
stderr_logfile_backups=1
autostart=false
autorestart={restart}
startsecs=0
stopsignal={stop_signal}
stopwaitsecs=1
killasgroup=true
"""


def config_path(folder: Path) -> Path:
    """The path of a session's supervisord config."""
    return folder / "supervisord.conf"


def write_config(folder: Path, programs: Sequence[Program]) -> None:
    """Write the config of supervisord and its programs, atomically."""
    sections = [_SUPERVISORD]
    sections += [
        _PROGRAM.format(
            name=program.name,
            command=_literal(" ".join(quote(word) for word in program.command)),
            stdout=program.stdout or "NONE",
            restart="true" if program.restart else "false",
            stop_signal=program.stop_signal,
        )
        for program in programs
    ]
    path = config_path(folder)
    draft = path.with_suffix(".draft")
    draft.write_text("".join(sections), encoding="utf-8")
    os.replace(draft, path)  # noqa: PTH105 - the system call that is meant


def quote(word: str) -> str:
    """One argument for supervisord's command line.

    With backslashes, not quotes: supervisord cuts a line at a `;` or `#` after white space even
    inside quotes.
    """
    return re.sub(r"([^\w@%+=:,./-])", r"\\\1", word, flags=re.ASCII) or "''"


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def start(
    folder: Path, environ: Mapping[str, str], programs: Sequence[Program]
) -> subprocess.Popen[bytes]:
    """Start supervisord, which starts none of the programs until `startProcess`."""
    write_config(folder, programs)
    return spawn(
        command("supervisor.supervisord", "-n", "-c", str(config_path(folder))),
        env=environ,
        death_signal=signal.SIGTERM,
        descriptor_limit=_DESCRIPTOR_LIMIT,
        output=output_path(folder),
        cwd=folder,
    )


def output_path(folder: Path) -> Path:
    """The file with supervisord's own output."""
    return folder / "supervisord.out"
