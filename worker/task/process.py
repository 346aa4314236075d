"""The task's process, as the session drives it.

A function runs in `worker.task.child`, which is started early and then waits for the display and
the stream. A COMMAND is started when both are ready: nothing of it can be loaded in advance.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Final, Protocol, assert_never

from worker import outcome
from worker.errors import StartFailed
from worker.outcome import EXIT_SESSION_LOST, Outcome, TaskError
from worker.process.children import send_signal
from worker.task import output
from worker.task.log import TaskLog
from worker.task.messages import (
    ERROR_TEXT_MAX_CHARS,
    LINE_MAX_BYTES,
    BrowserFailed,
    DisplayReady,
    FromTask,
    Go,
    Quit,
    Raised,
    Ready,
    Returned,
    Started,
    bounded,
)
from worker.task.target import Command
from worker.wire import Decoder, InvalidMessage, encode

if TYPE_CHECKING:
    from worker.process.children import Child, Children
    from worker.task.messages import ToTask
    from worker.task.spec import StartedChild, TaskSpec

GRACE_S: Final = 3.0
_PROCESS: Final = "the task's process"
_DECODER: Final[Decoder[FromTask]] = Decoder(FromTask)


class Task(Protocol):
    """One task's process."""

    async def prepare(self, display: str, xauthority: str) -> None:
        """Load on a ready display all that can be loaded without running the task's code."""

    async def go(self) -> None:
        """Start the task's code."""

    async def ended(self) -> Outcome:
        """Wait until the task has ended and return how."""

    async def stop(self) -> None:
        """End the process: SIGTERM, up to GRACE_S for its clean-up, SIGKILL."""


async def start(spec: TaskSpec, child: StartedChild | None, children: Children) -> Task:
    """Take over the process of a function; a COMMAND is started by its `go`.

    Args:
        spec: the task.
        child: the result of `start_child`.
        children: gets the process.
    """
    if isinstance(spec.target, Command):
        return CommandTask(spec.target, spec, children)
    if child is None:
        raise StartFailed(_PROCESS, "it was not started")
    task = FunctionTask(spec, child, children)
    await task.connect()
    return task


class FunctionTask:
    """A Python function, in a process of its own.

    A process that breaks the protocol of its connection makes the task fail; it cannot make the
    session fail. Before `ended` only this is remembered, and `prepare` and `go` return.
    """

    def __init__(self, spec: TaskSpec, child: StartedChild, children: Children) -> None:
        self._started = child
        self._child = children.adopt(child.process)
        self._log = TaskLog(self._child, spec.log, spec.log_max_bytes)
        self._end_reported = False
        self._violation: InvalidMessage | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> None:
        """Take over the connection and send the rest of the first message."""
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=self._started.socket, limit=LINE_MAX_BYTES
        )
        self._writer.write(self._started.unsent)
        self._closing = asyncio.ensure_future(self._close_after_process())

    async def _close_after_process(self) -> None:
        """Read no more than what the process has sent: another one may hold its end open."""
        await self._child.wait()
        with contextlib.suppress(OSError):
            self._writer.get_extra_info("socket").shutdown(socket.SHUT_RD)

    async def prepare(self, display: str, xauthority: str) -> None:
        """Launch the browser on the display.

        Raises:
            StartFailed: the browser, or the process itself, did not start.
        """
        self._send(DisplayReady(display=display, xauthority=xauthority))
        await self._expect(Ready)

    async def go(self) -> None:
        """Call the function; returns when SIGTERM stops it and lets it clean up.

        Raises:
            StartFailed: the process ended.
        """
        self._send(Go())
        await self._expect(Started)

    async def ended(self) -> Outcome:
        """Wait for the function's end.

        Its code is loaded, so whatever is received is its own claim, and it is what has failed.
        """
        message = await self._receive()
        self._end_reported = isinstance(message, Returned | Raised | BrowserFailed)
        match message:
            case None:
                return await self._without_result()
            case Returned():
                return outcome.success(message.output)
            case Raised():
                return outcome.raised(message.error)
            case BrowserFailed():
                error = TaskError(type=type(message).__name__, message=message.message)
                return outcome.raised(error)
            case Ready() | Started():
                self._violation = _unexpected(message)
                return await self._without_result()
            case _:
                assert_never(message)

    async def stop(self) -> None:
        """Let a process whose function ended close its browser; end another one; kill the rest."""
        if not self._end_reported and self._child.running:
            send_signal(self._child.pid, signal.SIGTERM)  # not its group: it needs its browser
        try:
            async with asyncio.timeout(GRACE_S):
                if not self._end_reported:
                    await self._receive()  # the function's end, after its clean-up
                self._send(Quit())
                await self._child.wait()
        except TimeoutError:
            pass
        await self._child.stop(0)
        self._closing.cancel()
        self._writer.close()
        await self._log.wait_for_end()

    async def _expect(self, expected: type[Ready | Started]) -> None:
        message = await self._receive()
        if self._violation is not None:
            return
        match message:
            case None:
                code = await self._child.wait()
                await self._log.wait_for_end()
                raise StartFailed(_PROCESS, f"it ended with {code}", self._log.output_tail)
            case BrowserFailed():
                raise _browser_failed(message)
            case Ready() | Started() | Returned() | Raised():
                if not isinstance(message, expected):
                    self._violation = _unexpected(message)
            case _:
                assert_never(message)

    async def _without_result(self) -> Outcome:
        if self._violation is not None:
            return _protocol_broken(self._violation)
        code = await self._child.wait()
        ended = outcome.exited(code)
        if code == 0:
            message = "the task's process ended without a result"
            return outcome.raised(TaskError(type="Exited", message=message))
        if code == EXIT_SESSION_LOST and ended.error is not None:
            return outcome.raised(ended.error)  # a function cannot claim that the session was lost
        return ended

    def _send(self, message: ToTask) -> None:
        self._writer.write(encode(message) + b"\n")

    async def _receive(self) -> FromTask | None:
        """The next message; None at the connection's end, or if the protocol is broken."""
        if self._violation is not None:
            return None
        try:
            line = await self._reader.readline()
        except OSError:
            return None
        except ValueError:
            self._violation = InvalidMessage(f"a line is longer than {LINE_MAX_BYTES} bytes")
            return None
        if not line.endswith(b"\n"):
            return None
        try:
            return _checked(_DECODER.decode(line))
        except InvalidMessage as error:
            self._violation = error
        except Exception as error:  # whatever the line contains, it is the task that has failed
            self._violation = InvalidMessage(f"not a message: {type(error).__name__}")
        return None


class CommandTask:
    """Any program; it launches its own browser."""

    def __init__(self, target: Command, spec: TaskSpec, children: Children) -> None:
        self._target, self._spec, self._children = target, spec, children
        self._child: Child | None = None
        self._log: TaskLog | None = None
        self._environ: dict[str, str] = {}
        self._failure: Outcome

    async def prepare(self, display: str, xauthority: str) -> None:
        """Keep the display for `go`: nothing of a program can be loaded in advance."""
        self._environ = {**self._spec.environ, "DISPLAY": display, "XAUTHORITY": xauthority}

    async def go(self) -> None:
        """Start the program; if it cannot be executed, `ended` returns the reason."""
        try:
            self._child = self._children.spawn(
                self._target.argv, env=self._environ, death_signal=signal.SIGKILL
            )
        except OSError as error:
            message = f"cannot execute {self._target.argv[0]}: {error.strerror}"
            self._failure = outcome.raised(TaskError(type="OSError", message=message))
            return
        if self._children.cgroup is not None:
            self._children.cgroup.add(self._child.pid)
        self._log = TaskLog(self._child, self._spec.log, self._spec.log_max_bytes)

    async def ended(self) -> Outcome:
        """Wait for its exit."""
        if self._child is None:
            return self._failure
        return outcome.exited(await self._child.wait())

    async def stop(self) -> None:
        """SIGTERM to its process group, up to GRACE_S, SIGKILL."""
        if self._child is not None:
            await self._child.stop(GRACE_S)
        if self._log is not None:
            await self._log.wait_for_end()


def _checked(message: FromTask) -> FromTask:
    """Check what `worker.task.child` checks before it sends."""
    if isinstance(message, Returned):
        try:
            output.check(message.output)
        except (TypeError, ValueError) as error:
            raise InvalidMessage(str(error)) from None
    if isinstance(message, Raised):
        return Raised(error=bounded(message.error))
    if isinstance(message, BrowserFailed):
        return BrowserFailed(message=message.message[:ERROR_TEXT_MAX_CHARS])
    return message


def _unexpected(message: FromTask) -> InvalidMessage:
    return InvalidMessage(f"unexpected {type(message).__name__}")


def _protocol_broken(violation: InvalidMessage) -> Outcome:
    text = (
        f"the task's process broke the protocol of its connection to the session: {violation}; "
        "a task must not write to file descriptors that it did not open"
    )
    return outcome.raised(TaskError(type="TaskProtocolError", message=text))


def _browser_failed(message: BrowserFailed) -> StartFailed:
    return StartFailed("chromium", message.message.strip().partition("\n")[0])
