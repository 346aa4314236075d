"""supervisord, the process manager of the display stack: its config, its RPC, its programs.

Its config and sockets live in the session's private folder, so `supervisorctl -c
<folder>/supervisord.conf status` works for whoever debugs. It is driven over XML-RPC
(http://supervisord.org/api.html). Its own loop turns once a second unless a call wakes it, so a
death that this module sees first (by a pidfd) is followed by calls until supervisord has acted.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import signal
import sys
import time
import xmlrpc.client
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from worker.children import Child, Children, exited, in_thread, send_signal
from worker.errors import StartFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

READY_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 1.0
_POLL_S: Final = 0.005
_RPC_TIMEOUT_S: Final = 3.0
_DESCRIPTOR_LIMIT: Final = 1024  # x11vnc walks every descriptor up to the limit at each connect
_TURNS_TO_LOG: Final = 2
_LOG_TAIL_BYTES: Final = 2000
_LOG_TAIL_LINES: Final = 3

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


@dataclass(eq=False, slots=True)
class Supervisord:
    """A running supervisord and the programs that it was given."""

    folder: Path
    process: Child
    _programs: list[Program] = field(default_factory=list)
    _one_call: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def config(self) -> Path:
        """What `supervisorctl -c` takes."""
        return config_path(self.folder)

    async def add(self, programs: Sequence[Program]) -> None:
        """Write more programs into the config and make supervisord know them."""
        self._programs += programs
        write_config(self.folder, self._programs)
        await self.call("reloadConfig")
        for program in programs:
            await self.call("addProcessGroup", program.name)

    async def start(self, name: str) -> int:
        """Start a program; returns its process id.

        Raises:
            StartFailed: it cannot be executed.
        """
        try:
            await self.call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            raise StartFailed(name, fault.faultString, await self.last_words(name)) from fault
        return await self.pid(name)

    async def pid(self, name: str) -> int:
        """The process id of a program; 0 while it does not run."""
        info: dict[str, Any] = await self.call("getProcessInfo", name)
        return int(info["pid"])

    async def replaced(self, name: str, dead_pid: int) -> int:
        """Wait until supervisord has restarted a program that just died; its new process id.

        Every call wakes supervisord's loop: one to reap the dead, one to start the next.
        """
        while True:
            pid = await self.pid(name)
            if pid not in (0, dead_pid):
                return pid
            await asyncio.sleep(_POLL_S)

    async def stop(self, name: str, pid: int) -> None:
        """Stop a program: TERM, a bounded wait, KILL.

        x11vnc can deadlock inside its own TERM handler, so nothing waits without a deadline.
        """
        gone = asyncio.ensure_future(exited(pid))
        try:
            try:
                await self.call("stopProcess", name, False)
            except (xmlrpc.client.Error, http.client.HTTPException, OSError):
                if not gone.done():
                    send_signal(pid, signal.SIGTERM)
            done, _ = await asyncio.wait([gone], timeout=STOP_TIMEOUT_S)
            if not done:
                send_signal(pid, signal.SIGKILL)
                await gone
        finally:
            gone.cancel()

    async def shut_down(self) -> None:
        """End supervisord itself; its programs are stopped already."""
        ended = asyncio.ensure_future(self.process.wait())
        started = time.monotonic()
        try:
            await self.call("shutdown")
            while not ended.done() and time.monotonic() - started < STOP_TIMEOUT_S:
                await asyncio.wait([ended], timeout=_POLL_S)
                if not ended.done():
                    await self.call("getState")  # wakes its loop, which else sleeps a second
        except (xmlrpc.client.Error, OSError, http.client.HTTPException, TimeoutError):
            pass  # it is on its way out, or broken: either way stop() below ends it
        finally:
            ended.cancel()
        await self.process.stop(STOP_TIMEOUT_S)

    async def call(self, method: str, *args: object) -> Any:
        """One XML-RPC call, on a transport of its own: a failed one cannot be used again.

        Raises:
            xmlrpc.client.Fault: supervisord refused.
            OSError, TimeoutError: supervisord did not answer.
        """
        async with self._one_call, asyncio.timeout(_RPC_TIMEOUT_S):
            return await in_thread(_call, f"unix://{self.folder}/supervisor.sock", method, args)

    async def last_words(self, name: str) -> str:
        """The end of a dead program's log, for an error message.

        supervisord copies a program's output into its log when its loop turns, so it is woken.
        """
        with contextlib.suppress(xmlrpc.client.Error, OSError, http.client.HTTPException):
            for _ in range(_TURNS_TO_LOG):
                await self.call("getState")
        return last_lines(self.folder / f"{name}.log")


async def start(folder: Path, children: Children, environ: Mapping[str, str]) -> Supervisord:
    """Start supervisord without any program and wait until it answers.

    Raises:
        StartFailed: it ended, or did not answer in time.
    """
    write_config(folder, [])
    argv = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(config_path(folder))]
    process = children.spawn(
        argv,
        env=environ,
        death_signal=signal.SIGTERM,
        descriptor_limit=_DESCRIPTOR_LIMIT,
        output=folder / "supervisord.out",
    )
    supervisord = Supervisord(folder, process)
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not (folder / "supervisor.sock").exists() or not await _answers(supervisord):
        if not process.running or time.monotonic() > deadline:
            why = "it did not answer in time" if process.running else "it ended"
            await process.stop(STOP_TIMEOUT_S)
            raise StartFailed("supervisord", why, last_lines(folder / "supervisord.out"))
        await asyncio.sleep(_POLL_S)
    return supervisord


async def _answers(supervisord: Supervisord) -> bool:
    try:
        await supervisord.call("getState")
    except (OSError, http.client.HTTPException, TimeoutError):
        return False
    return True


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


def last_lines(log: Path) -> str:
    """The last few lines of a log as one line; empty when there are none."""
    try:
        text = log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_LOG_TAIL_LINES:])


def _call(url: str, method: str, args: Sequence[Any]) -> Any:
    from supervisor.xmlrpc import SupervisorTransport  # noqa: PLC0415 - imported off the loop

    transport = SupervisorTransport(None, None, url)
    try:
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
            return getattr(server.supervisor, method)(*args)
    finally:
        transport.close()
