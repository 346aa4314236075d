"""The config of supervisord and its programs, and the start of supervisord.

The config is in memory (memfd_create(2)) that supervisord inherits as a descriptor: it contains the
password for supervisord's socket, and no other process can read it or change what a reload starts.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.process.spawn import spawn
from worker.surroundings.interpreter import command

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from worker.process.program import Program

_CLOSED_DESCRIPTORS: Final = 64
_DESCRIPTOR_LIMIT: Final = 1024  # x11vnc walks every descriptor up to the limit at each connect

# Files are relative to supervisord's working directory: no value can contain ` ;`, which begins a
# comment. It refuses to start if a hard limit is less than minfds or minprocs, and closes the
# descriptors below minfds in its programs.
_SUPERVISORD: Final = """\
[supervisord]
nodaemon=true
minfds={closed}
minprocs=1
logfile=supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile=supervisord.pid
childlogdir=.

[unix_http_server]
file=supervisor.sock
chmod=0700
username={user}
password={password}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

# The session restarts programs; supervisord itself never does. With startsecs=0 a program that ends
# at once has the same state as one that ends later; with startretries=0 a failed fork is final too.
_PROGRAM: Final = """
[program:{name}]
command={command}
stdout_logfile={stdout}
stdout_logfile_maxbytes=0
stderr_logfile={name}.log
stderr_logfile_maxbytes=1MB
stderr_logfile_backups=1
autostart=false
autorestart=false
startsecs=0
startretries=0
stopsignal={stop_signal}
stopwaitsecs=1
killasgroup=true
"""


USER: Final = "worker"
_PASSWORD_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Config:
    """The config of one supervisord.

    Attributes:
        folder: for its socket and logs.
        password: for its socket, with the name `USER`.
        descriptor: of the memory that contains the config.
    """

    folder: Path
    password: str
    descriptor: int

    def write(self, programs: Iterable[Program]) -> None:
        """Replace the content; supervisord reads it at its start and at `reloadConfig`."""
        text = config_text(self.password, programs).encode()
        os.ftruncate(self.descriptor, 0)
        written = 0
        while written < len(text):
            written += os.pwrite(self.descriptor, text[written:], written)


@dataclass(frozen=True, slots=True)
class StartedSupervisord:
    """A supervisord that was started, and its config."""

    process: subprocess.Popen[bytes]
    config: Config


def config_text(password: str, programs: Iterable[Program]) -> str:
    """The config as text."""
    sections = [_SUPERVISORD.format(user=USER, password=password, closed=_CLOSED_DESCRIPTORS)]
    sections += [
        _PROGRAM.format(
            name=program.name,
            command=_literal(" ".join(quote(word) for word in program.command)),
            stdout=program.stdout or "NONE",
            stop_signal=program.stop_signal,
        )
        for program in programs
    ]
    return "".join(sections)


def quote(word: str) -> str:
    """One argument for supervisord's command line.

    With backslashes, not quotes: supervisord cuts a line at a `;` or `#` after white space even
    inside quotes.
    """
    return re.sub(r"([^\w@%+=:,./-])", r"\\\1", word, flags=re.ASCII) or "''"


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def passable(descriptor: int) -> int:
    """Move a descriptor to a number that supervisord does not close in its programs."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _CLOSED_DESCRIPTORS)
    os.close(descriptor)
    return moved


def start(
    folder: Path,
    environ: Mapping[str, str],
    programs: Iterable[Program],
    inherited: Sequence[int] = (),
) -> StartedSupervisord:
    """Start supervisord, which starts none of the programs until `startProcess`.

    Args:
        folder: for its socket and logs.
        environ: its environment and that of its programs.
        programs: those in its config.
        inherited: descriptors that all programs inherit, from `passable`.
    """
    config = Config(folder, secrets.token_hex(_PASSWORD_BYTES), os.memfd_create("supervisord"))
    config.write(programs)
    memory = config.descriptor
    supervisord = ("supervisor.supervisord", "-n", "-c", f"/proc/self/fd/{memory}")
    process = spawn(
        command("worker.process.hidden", ",".join(map(str, inherited)), *supervisord),
        env=environ,
        death_signal=signal.SIGTERM,
        descriptor_limit=_DESCRIPTOR_LIMIT,
        output=output_path(folder),
        cwd=folder,
        pass_fds=[memory, *inherited],
    )
    return StartedSupervisord(process, config)


def output_path(folder: Path) -> Path:
    """The file with supervisord's own output."""
    return folder / "supervisord.out"
