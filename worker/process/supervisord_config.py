"""supervisord's config: its own part, and each program's; and the command that reads it."""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.process.spawn import spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_DESCRIPTOR_LIMIT: Final = 1024  # x11vnc walks every descriptor up to the limit at each connect

_SUPERVISORD: Final = """\
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
childlogdir={folder}

[unix_http_server]
file={folder}/supervisor.sock
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{folder}/supervisor.sock
"""

# startsecs=0: a program that dies at once is restarted at once; the session bounds how often.
_PROGRAM: Final = """
[program:{name}]
command={command}
stdout_logfile={stdout}
stdout_logfile_maxbytes=0
stderr_logfile={folder}/{name}.log
stderr_logfile_maxbytes=1MB
stderr_logfile_backups=1
autostart=false
autorestart={restart}
startsecs=0
stopsignal={stop_signal}
stopwaitsecs=1
killasgroup=true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program of the display stack."""

    name: str
    command: Sequence[str]
    restart: bool
    stdout: Path | None = None
    stop_signal: str = "TERM"


def config_path(folder: Path) -> Path:
    """Where a session's supervisord config is."""
    return folder / "supervisord.conf"


def write_config(folder: Path, programs: Sequence[Program]) -> None:
    """Write the config of supervisord and its programs, atomically."""
    sections = [_SUPERVISORD.format(folder=_literal(str(folder)))]
    sections += [
        _PROGRAM.format(
            name=program.name,
            command=_literal(" ".join(quote(word) for word in program.command)),
            stdout=_literal(str(program.stdout)) if program.stdout else "NONE",
            folder=_literal(str(folder)),
            restart="true" if program.restart else "false",
            stop_signal=program.stop_signal,
        )
        for program in programs
    ]
    path = config_path(folder)
    draft = path.with_suffix(".draft")
    draft.write_text("".join(sections))
    os.replace(draft, path)  # noqa: PTH105 - the system call that is meant


def quote(word: str) -> str:
    """One argument for supervisord's command line.

    By backslashes, not quotes: supervisord cuts a line at a `;` or `#` behind white space even
    inside quotes.
    """
    return re.sub(r"([^\w@%+=:,./-])", r"\\\1", word, flags=re.ASCII) or "''"


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def launch(
    folder: Path, environ: Mapping[str, str], programs: Sequence[Program]
) -> subprocess.Popen[bytes]:
    """Start supervisord, which starts none of the programs by itself."""
    write_config(folder, programs)
    return spawn(
        [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(config_path(folder))],
        env=environ,
        death_signal=signal.SIGTERM,
        descriptor_limit=_DESCRIPTOR_LIMIT,
        output=output_path(folder),
    )


def output_path(folder: Path) -> Path:
    """What supervisord itself says."""
    return folder / "supervisord.out"
