"""A running supervisord: its RPC, and the programs that it starts and stops.

Its config and sockets are in the session's private folder, so `supervisorctl -c
<folder>/supervisord.conf status` works for debugging. It is driven over XML-RPC
(http://supervisord.org/api.html). Its own loop runs once a second unless a call wakes it, so a
death that this module detects first (by a pidfd) is followed by calls until supervisord has acted.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import signal
import time
import xmlrpc.client
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from worker.errors import StartFailed
from worker.process.children import exited, in_thread, send_signal
from worker.process.supervisord_config import output_path, write_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from worker.process.children import Child
    from worker.process.program import Program

READY_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 1.0
_POLL_S: Final = 0.005
_RPC_TIMEOUT_S: Final = 3.0
_LOOPS_TO_LOG: Final = 2
_LOG_TAIL_BYTES: Final = 2000
_LOG_TAIL_LINES: Final = 3

_RPC_ERRORS: Final = (xmlrpc.client.Error, http.client.HTTPException, OSError)


@dataclass(eq=False, slots=True)
class Supervisord:
    """A running supervisord and the programs in its config."""

    folder: Path
    process: Child
    _programs: list[Program] = field(default_factory=list)
    _one_call: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self, *programs: Program) -> list[int]:
        """Start programs, in one call; returns their process ids.

        Programs that are not in the config yet are added to it.

        Raises:
            StartFailed: one cannot be executed.
        """
        names = [program.name for program in programs]
        calls = self._additions(programs)
        calls += [("startProcess", name, False) for name in names]
        calls += [("getProcessInfo", name) for name in names]
        answers = (await self._multicall(*calls))[-2 * len(names) :]
        for name, answer in zip(names, answers, strict=False):
            if isinstance(answer, dict):  # a fault
                raise StartFailed(name, answer["faultString"], await self.output_tail(name))
        return [int(answer["pid"]) for answer in answers[len(names) :]]

    def _additions(self, programs: Sequence[Program]) -> list[tuple[Any, ...]]:
        known = {program.name for program in self._programs}
        added = [program for program in programs if program.name not in known]
        if not added:
            return []
        self._programs += added
        write_config(self.folder, self._programs)
        return [("reloadConfig",), *(("addProcessGroup", program.name) for program in added)]

    async def _multicall(self, *calls: tuple[Any, ...]) -> list[Any]:
        """Several calls in one; each answer is the call's, or a dict with `faultString`."""
        packed = [{"methodName": f"supervisor.{name}", "params": args} for name, *args in calls]
        answers: list[Any] = await self.call("system.multicall", packed)
        return answers

    async def pid(self, name: str) -> int:
        """The process id of a program; 0 while it does not run."""
        info: dict[str, Any] = await self.call("getProcessInfo", name)
        return int(info["pid"])

    async def replaced(self, name: str, dead_pid: int) -> int:
        """Wait until supervisord has restarted a program that just died; its new process id.

        Every call wakes supervisord's loop: one to reap the dead process, one to start the next.
        """
        while True:
            pid = await self.pid(name)
            if pid not in (0, dead_pid):
                return pid
            await asyncio.sleep(_POLL_S)

    async def stop(self, program: Program, pid: int) -> None:
        """Stop a program: its stop signal, a bounded wait, SIGKILL."""
        gone = asyncio.ensure_future(exited(pid))
        try:
            try:
                await self.call("stopProcess", program.name, False, timeout_s=STOP_TIMEOUT_S)
            except _RPC_ERRORS:
                if not gone.done():
                    send_signal(pid, signal.Signals[f"SIG{program.stop_signal}"])
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
            await self.call("shutdown", timeout_s=STOP_TIMEOUT_S)
            while not ended.done() and time.monotonic() - started < STOP_TIMEOUT_S:
                await asyncio.wait([ended], timeout=_POLL_S)
                if not ended.done():
                    # Wakes its loop, which otherwise waits for up to a second.
                    await self.call("getState", timeout_s=STOP_TIMEOUT_S)
        except (*_RPC_ERRORS, TimeoutError):
            pass  # it is ending, or broken: stop() below ends it in both cases
        finally:
            ended.cancel()
        await self.process.stop(STOP_TIMEOUT_S)

    async def call(self, method: str, *args: object, timeout_s: float = _RPC_TIMEOUT_S) -> Any:
        """One XML-RPC call, on a transport of its own: a failed one cannot be used again.

        Raises:
            xmlrpc.client.Fault: supervisord refused.
            OSError, TimeoutError: supervisord did not answer.
        """
        name = method if "." in method else f"supervisor.{method}"
        async with asyncio.timeout(timeout_s), self._one_call:
            return await in_thread(_call, f"unix://{self.folder}/supervisor.sock", name, args)

    async def output_tail(self, name: str) -> str:
        """The end of a dead program's log, for an error message.

        supervisord copies a program's output into its log when its loop runs, so it is woken.
        """
        with contextlib.suppress(*_RPC_ERRORS):
            for _ in range(_LOOPS_TO_LOG):
                await self.call("getState")
        return last_lines(self.folder / f"{name}.log")


async def connect(folder: Path, process: Child, programs: Sequence[Program]) -> Supervisord:
    """Wait until a supervisord that was started answers.

    Args:
        folder: where its config is.
        process: supervisord.
        programs: the programs in its config.

    Raises:
        StartFailed: it ended, or did not answer in time.
    """
    supervisord = Supervisord(folder, process, list(programs))
    await in_thread(_transport)  # imported while supervisord starts
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not (folder / "supervisor.sock").exists() or not await _answers(supervisord):
        if not process.running or time.monotonic() > deadline:
            why = "it did not answer in time" if process.running else "it ended"
            await process.stop(STOP_TIMEOUT_S)
            raise StartFailed("supervisord", why, last_lines(output_path(folder)))
        await asyncio.sleep(_POLL_S)
    return supervisord


async def _answers(supervisord: Supervisord) -> bool:
    try:
        await supervisord.call("getState")
    except (OSError, http.client.HTTPException, TimeoutError):
        return False
    return True


def last_lines(log: Path) -> str:
    """The last few lines of a log as one line; empty when there are none."""
    try:
        text = log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_LOG_TAIL_LINES:])


def _transport() -> Any:
    from supervisor.xmlrpc import SupervisorTransport  # noqa: PLC0415 - imported off the loop

    return SupervisorTransport


def _call(url: str, method: str, args: Sequence[Any]) -> Any:
    transport = _transport()(None, None, url)
    try:
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
            return getattr(server, method)(*args)
    finally:
        transport.close()
