"""A running supervisord: its RPC, and the programs that it starts.

It is driven over XML-RPC (http://supervisord.org/api.html) on a Unix socket in the session's
private folder. Its own loop runs once a second unless a call wakes it, so an end that a pidfd has
reported is followed by calls until supervisord has reaped the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import time
import xmlrpc.client
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from worker.errors import SessionError, SessionLost, StartFailed
from worker.process.children import in_thread
from worker.process.supervisord_config import output_path
from worker.process.supervisord_rpc import Connection, call

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from worker.process.children import Child
    from worker.process.program import Program
    from worker.process.supervisord_config import Config

READY_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 1.0
RPC_TIMEOUT_S: Final = 3.0  # also when supervisord was stopped by a signal
_TAIL_TIMEOUT_S: Final = 0.5  # the loss of the display is reported without a log sooner than late
_POLL_S: Final = 0.005
_LOOPS_TO_LOG: Final = 2
_LOG_TAIL_BYTES: Final = 2000
_LOG_TAIL_LINES: Final = 3
# supervisor.xmlrpc.Faults: it has ended already, or was started by a call that timed out.
_NOT_FATAL: Final = {50, 60}
_SIGNALLED: Final = -1


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How a program has ended.

    Attributes:
        status: its exit status; None if a signal killed it, or it could not be started.
        why: the same in words.
    """

    status: int | None
    why: str


@dataclass(eq=False, slots=True)
class Supervisord:
    """A running supervisord and the programs in its config."""

    config: Config
    process: Child
    _programs: list[Program] = field(default_factory=list)
    _one_call: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self, *programs: Program) -> list[int]:
        """Start programs, in one call; returns their process ids, 0 for one that ended already.

        Programs that are not in the config yet are added to it.

        Raises:
            StartFailed: one cannot be executed.
            SessionLost: supervisord ended, or did not answer.
        """
        names = [program.name for program in programs]
        calls = self._additions(programs)
        calls += [("startProcess", name, False) for name in names]
        calls += [("getProcessInfo", name) for name in names]
        answers = (await self._multicall(*calls))[-2 * len(names) :]
        for name, answer in zip(names, answers, strict=False):
            if isinstance(answer, dict) and answer["faultCode"] not in _NOT_FATAL:
                raise StartFailed(name, answer["faultString"], await self.output_tail(name))
        return [int(answer["pid"]) for answer in answers[len(names) :]]

    def _additions(self, programs: Sequence[Program]) -> list[tuple[Any, ...]]:
        known = {program.name for program in self._programs}
        added = [program for program in programs if program.name not in known]
        if not added:
            return []
        self._programs += added
        self.config.write(self._programs)
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

    async def end_of(self, name: str) -> ProgramEnd:
        """Wait until supervisord has reaped a program that has just ended.

        Every call wakes supervisord's loop, which reaps after it has answered.

        Raises:
            SessionLost: supervisord ended, or did not answer.
        """
        while True:
            info: dict[str, Any] = await self.call("getProcessInfo", name)
            if not info["pid"]:
                return _program_end(info)
            await asyncio.sleep(_POLL_S)

    async def answers(self) -> bool:
        """Whether it answers a call."""
        try:
            await self.call("getState")
        except SessionError:
            return False
        return True

    async def keeps_running(self) -> bool:
        """Whether it runs and was not requested to end; also True while it was stopped."""
        try:
            await self.call("getState")  # refused while it is shutting down
        except SessionError as error:
            return self.process.running and isinstance(error.__cause__, TimeoutError)
        return True

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
        except SessionError:
            pass  # it is ending, or broken: stop() below ends it in both cases
        finally:
            ended.cancel()
        await self.process.stop(STOP_TIMEOUT_S)

    async def call(self, method: str, *args: object, timeout_s: float = RPC_TIMEOUT_S) -> Any:
        """One XML-RPC call.

        Raises:
            SessionLost: supervisord ended, did not answer in time, or refused.
        """
        name = method if "." in method else f"supervisor.{method}"
        connection = Connection(self.config, self.process.pid)
        try:
            async with asyncio.timeout(timeout_s), self._one_call:
                return await self._unless_ended(in_thread(call, connection, name, args))
        except TimeoutError as error:
            raise SessionLost(f"supervisord did not answer within {timeout_s:g} s") from error
        except (xmlrpc.client.Error, http.client.HTTPException, OSError) as error:
            why = str(error) or type(error).__name__
            raise SessionLost(f"supervisord died, or refused {method}: {why}") from error
        finally:
            connection.abort()

    async def _unless_ended(self, calling: Any) -> Any:
        answer = asyncio.ensure_future(calling)
        ended = asyncio.ensure_future(self.process.wait())
        try:
            await asyncio.wait((answer, ended), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            raise SessionLost("supervisord died")
        finally:
            answer.cancel()
            ended.cancel()

    async def output_tail(self, name: str) -> str:
        """The end of a dead program's log, for an error message.

        supervisord copies a program's output into its log when its loop runs, so it is woken.
        """
        with contextlib.suppress(SessionError):
            for _ in range(_LOOPS_TO_LOG):
                await self.call("getState", timeout_s=_TAIL_TIMEOUT_S)
        return last_lines(self.config.folder / f"{name}.log")


async def connect(config: Config, process: Child, programs: Iterable[Program]) -> Supervisord:
    """Wait until a supervisord that was started answers.

    Args:
        config: its config.
        process: supervisord.
        programs: the programs in its config.

    Raises:
        StartFailed: it ended, or did not answer in time.
        SessionLost: it was killed.
    """
    supervisord = Supervisord(config, process, list(programs))
    socket = config.folder / "supervisor.sock"
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY_TIMEOUT_S
    while not socket.exists() or not await supervisord.answers():
        if not process.running or loop.time() > deadline:
            if not process.running and await process.wait() < 0:
                raise SessionLost("supervisord died while it started")
            why = "it did not answer in time" if process.running else "it ended"
            await process.stop(STOP_TIMEOUT_S)
            raise StartFailed("supervisord", why, last_lines(output_path(config.folder)))
        await asyncio.sleep(_POLL_S)
    return supervisord


def _program_end(info: dict[str, Any]) -> ProgramEnd:
    status, error = int(info["exitstatus"]), str(info["spawnerr"])
    if status == _SIGNALLED:
        return ProgramEnd(None, "it was killed by a signal")
    if error and not error.startswith("Bad exit code"):
        return ProgramEnd(None, f"it was not started: {error}")
    return ProgramEnd(status, f"it exited with status {status}")


def last_lines(log: Path) -> str:
    """The last few lines of a log as one line; empty when there are none."""
    try:
        text = log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-_LOG_TAIL_LINES:])
