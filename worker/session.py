"""The session: the story of one task, from nothing to nothing (DESIGN, section 2)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker import outcome, programs
from worker.children import Children, exited, in_thread
from worker.display import window_manager, xvfb
from worker.errors import SessionError, SessionLost, StartFailed
from worker.events import rfc3339
from worker.outcome import Outcome, TaskError
from worker.programs import Program
from worker.stream import x11vnc
from worker.stream.channel import Channel
from worker.stream.control import State, StreamConfig
from worker.task import process

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Coroutine

    from worker.artifacts import Artifacts
    from worker.events import Events
    from worker.programs import Supervisord
    from worker.task.process import Task
    from worker.task.target import Target

START_TIMEOUT_S: Final = 20.0
RESTARTS_MAX: Final = 10
RESTART_WINDOW_S: Final = 30.0
RESTART_TIMEOUT_S: Final = 5.0
SWEEP_GRACE_S: Final = 0.5
SWEEP_LIMIT_S: Final = 5.0
SIGNAL_EXIT_CODES: Final = {
    signal.SIGTERM: outcome.EXIT_SIGTERM,
    signal.SIGINT: outcome.EXIT_SIGINT,
}
_VIEWERS_GONE_S: Final = 3.0
_MS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something about this machine that the user should hear, as an event."""

    event: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a session needs, checked: nothing of it can be a user's mistake any more."""

    task_id: str
    target: Target
    inputs: dict[str, Any]
    environ: dict[str, str]  # of everything that is started
    task_environ: dict[str, str]  # and more of it, for the task alone
    launch: dict[str, Any]
    notices: tuple[Notice, ...]
    timeout_s: float
    hold_s: float
    artifacts: Artifacts
    listener: socket.socket
    stream_key: bytes
    novnc_dir: Path | None
    allowed_origins: tuple[str, ...]


async def run(plan: Plan, events: Events, stop: Stop) -> Outcome:
    """Run one task to its end and leave nothing behind.

    Args:
        plan: what to run.
        events: where its events go.
        stop: is set when a signal asks for the end.
    """
    children = Children()
    folder = Path(tempfile.mkdtemp(prefix="worker-"))  # 0700
    session = _Session(plan=plan, events=events, stop=stop, children=children, folder=folder)
    try:
        ended = await session.live()
    finally:
        await session.clear_away()
    session.report_finish(ended)
    return ended


class Stop:
    """The wish to end: set by a signal, looked at by the session; the first signal counts."""

    def __init__(self, early_signal: int | None = None) -> None:
        """Listen to signals from now on, inside a running event loop.

        Args:
            early_signal: one that came before there was a loop.
        """
        self.exit_code: int | None = None
        self._wished = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in SIGNAL_EXIT_CODES:
            loop.add_signal_handler(number, self._on_signal, number)
        if early_signal is not None:
            self._on_signal(early_signal)

    def _on_signal(self, signal_number: int) -> None:
        if self.exit_code is None:
            self.exit_code = SIGNAL_EXIT_CODES[signal.Signals(signal_number)]
        self._wished.set()

    async def wished(self) -> int:
        """Wait for the wish; returns the exit code that it means."""
        await self._wished.wait()
        return self.exit_code or outcome.EXIT_SIGTERM


@dataclass(slots=True, kw_only=True)
class _Session:
    plan: Plan
    events: Events
    stop: Stop
    children: Children
    folder: Path
    began: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    stages_ms: dict[str, int] = field(default_factory=dict)
    display: str = ""
    supervisord: Supervisord | None = None
    channel: Channel | None = None
    task: Task | None = None
    held: Outcome | None = None
    pids: dict[str, int] = field(default_factory=dict)
    watchers: list[asyncio.Task[None]] = field(default_factory=list)
    lost: asyncio.Future[SessionLost] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    # -- the story

    async def live(self) -> Outcome:
        """Start everything, run the task, tell the viewers how it ended."""
        self.events.emit("worker.started", target=self.plan.target.text, folder=str(self.folder))
        for notice in self.plan.notices:
            self.events.emit(notice.event, **notice.fields)
        ended = await self._until_stopped(self._start_and_run())
        self._mark("task")
        self._write_result(ended)
        self.events.emit("task.finished", **_summary(ended))
        await self._end_stream(ended)
        return ended

    async def _start_and_run(self) -> Outcome:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                task = await self._start()
        except TimeoutError:
            raise StartFailed("the session", f"it took longer than {START_TIMEOUT_S:g} s") from None
        self._mark("start")
        self._set_state(State.RUNNING)
        self.events.emit("stream.ready", **self._address())
        try:
            async with asyncio.timeout(self.plan.timeout_s):
                await task.go()
                self.events.emit("task.started", target=self.plan.target.text)
                ended = await task.ended()
        except TimeoutError:
            return outcome.timed_out(self.plan.timeout_s)
        if self.plan.hold_s:
            self.held = ended  # what a signal in the meantime does not change
            self.events.emit("task.held", hold_s=self.plan.hold_s, **_summary(ended))
            await asyncio.sleep(self.plan.hold_s)
        return ended

    async def _until_stopped(self, story: Coroutine[Any, Any, Outcome]) -> Outcome:
        """The story's outcome, unless a signal or a lost display ends it first."""
        told = asyncio.ensure_future(story)
        wished = asyncio.ensure_future(self.stop.wished())
        ends: tuple[asyncio.Future[Any], ...] = (told, wished, self.lost)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        try:
            if self.lost.done():
                return _lost(self.lost.result())
            if told.done():
                return told.result()
            return self.held or outcome.cancelled(wished.result())
        except SessionError as error:
            return _lost(error)
        except Exception as error:  # a defect of ours: say all, and still clean up
            traceback.print_exc()
            return _lost(error)
        finally:
            for future in (told, wished):
                future.cancel()
            await asyncio.wait([told, wished])

    async def _start(self) -> Task:
        """Everything that can start in parallel does; returns when all of it is ready."""
        plan = self.plan
        authority = self.folder / "Xauthority"
        xvfb.write_authority(authority)
        (self.folder / "tmp").mkdir()
        job = process.Job(
            target=plan.target,
            inputs=plan.inputs,
            environ={**plan.environ, **plan.task_environ, "TMPDIR": str(self.folder / "tmp")},
            launch=plan.launch,
            log=plan.artifacts.log,
        )
        self.task = await process.start(job, self.children)
        self._mark("task_process")
        self.supervisord = await programs.start(
            self.folder, self.children, {**plan.environ, "XAUTHORITY": str(authority)}
        )
        self._watch("supervisord", self.supervisord.process.wait(), self._on_session_part_lost)
        self._mark("supervisord")
        await self._start_display(authority)
        await _all(self._start_window_manager(authority), self._start_stream())
        return self.task

    async def _start_display(self, authority: Path) -> None:
        supervisord = self._supervisord()
        numbers = self.folder / "xvfb.display"
        os.mkfifo(numbers)
        program = Program(
            name="xvfb", command=xvfb.command(authority), restart=False, stdout=numbers
        )
        with _fifo(numbers) as descriptor:
            await supervisord.add([program])
            self.pids["xvfb"] = pid = await supervisord.start("xvfb")
            self._watch("xvfb", exited(pid), self._on_session_part_lost)
            number = await _first_line(descriptor, pid)
        if not number:
            said = await supervisord.last_words("xvfb")
            raise StartFailed("xvfb", "it reported no display", said)
        self.display = f":{number}"
        await in_thread(xvfb.check, self.display, authority)
        self._mark("xvfb")
        self.events.emit("xvfb.started", display=self.display)
        await supervisord.add(
            [
                Program(
                    name="window_manager",
                    command=window_manager.command(self.display),
                    restart=True,
                ),
                Program(
                    name="x11vnc",
                    command=x11vnc.command(self.display, authority, self._x11vnc_socket),
                    restart=True,
                ),
                Program(
                    name="websockify",
                    command=[sys.executable, "-m", "worker.stream", str(self._control_socket)],
                    restart=True,
                ),
            ]
        )

    async def _start_window_manager(self, authority: Path) -> None:
        ready = in_thread(window_manager.ready, self.display, authority)
        await self._start_program("window_manager", ready)
        self._mark("window_manager")
        self.events.emit("window_manager.started")
        if self.task is not None:
            await self.task.prepare(self.display, str(authority))
            self._mark("task_ready")

    async def _start_stream(self) -> None:
        self.channel = Channel(
            path=self._control_socket,
            config=self._stream_config(),
            listener=self.plan.listener,
            parent_pid=self._supervisord().process.pid,
            on_event=self.events.emit,
        )
        await _all(self._start_websockify(self.channel), self._start_x11vnc())

    async def _start_websockify(self, channel: Channel) -> None:
        await self._start_program("websockify", channel.listening.wait())
        self._mark("websockify")
        self.events.emit("websockify.started")

    async def _start_x11vnc(self) -> None:
        await self._start_program("x11vnc", x11vnc.ready(self._x11vnc_socket))
        self._mark("x11vnc")
        self.events.emit("x11vnc.started")
        self._prime_x11vnc()

    # -- the end

    async def _end_stream(self, ended: Outcome) -> None:
        """Admit nobody any more, and tell every viewer how it ended."""
        if self.channel is not None:
            self.channel.end(ended.close)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_VIEWERS_GONE_S):
                    await self.channel.viewers_gone.wait()
        self._mark("viewers_told")

    async def clear_away(self) -> None:
        """Stop everything; no process, socket or folder is left."""
        for watcher in self.watchers:
            watcher.cancel()
        await _each(self._stop_task(), self._stop_programs("x11vnc", "window_manager"))
        await _each(self._stop_display())
        await self.children.sweep(grace_s=SWEEP_GRACE_S, limit_s=SWEEP_LIMIT_S)
        if self.display:
            xvfb.remove_socket(self.display)
        self.plan.listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._mark("cleared_away")

    async def _stop_task(self) -> None:
        if self.task is not None:
            await self.task.stop()
        spare = [self.supervisord.process.pid] if self.supervisord is not None else []
        await self.children.sweep(spare=spare, grace_s=SWEEP_GRACE_S, limit_s=SWEEP_LIMIT_S)
        self._mark("task_stopped")

    async def _stop_programs(self, *names: str) -> None:
        if self.supervisord is not None:
            known = [name for name in names if name in self.pids]
            await _each(*(self.supervisord.stop(name, self.pids[name]) for name in known))

    async def _stop_display(self) -> None:
        await self._stop_programs("xvfb")
        if self.channel is not None:
            self.channel.quit()
        await self._stop_programs("websockify")
        if self.channel is not None:
            self.channel.close()
        if self.supervisord is not None:
            await self.supervisord.shut_down()
        self._mark("display_stopped")

    def report_finish(self, ended: Outcome) -> None:
        """Say that all is over; exactly once."""
        self.events.emit(
            "worker.finished",
            **_summary(ended),
            duration_s=self._duration_s(),
            stages_ms=self.stages_ms,
        )

    def _write_result(self, ended: Outcome) -> None:
        finished_at = datetime.now(UTC)
        result = {
            "task_id": self.plan.task_id,
            "status": str(ended.status),
            "exit_code": ended.exit_code,
            "output": ended.output,
            "error": dataclasses.asdict(ended.error) if ended.error else None,
            "started_at": rfc3339(self.started_at),
            "finished_at": rfc3339(finished_at),
            "duration_s": self._duration_s(),
            "stages_ms": self.stages_ms,
        }
        try:
            self.plan.artifacts.write_result(json.dumps(result, indent=2, ensure_ascii=False))
        except OSError as error:
            self.events.emit("result.failed", path=str(self.plan.artifacts.result), why=str(error))
            print(f"worker: cannot write the result: {error}", file=sys.stderr)  # noqa: T201

    # -- programs that die

    async def _start_program(self, name: str, ready: Coroutine[Any, Any, object]) -> None:
        """Start a program that is restarted when it dies, once it has become ready.

        Raises:
            StartFailed: it died before, or was not ready in time.
        """
        waiting = asyncio.ensure_future(ready)
        try:
            self.pids[name] = pid = await self._supervisord().start(name)
            if not await _before_death(waiting, pid):
                said = await self._supervisord().last_words(name)
                raise StartFailed(name, "it ended", said)
        finally:
            waiting.cancel()
        self._watch(name, exited(pid), self._on_program_died)

    def _prime_x11vnc(self) -> None:
        self.watchers.append(asyncio.ensure_future(x11vnc.prime(self._x11vnc_socket)))

    def _watch(self, name: str, death: Awaitable[object], on_death: _OnDeath) -> None:
        async def watch() -> None:
            await death
            await on_death(self, name)

        self.watchers.append(asyncio.ensure_future(watch()))

    @staticmethod
    async def _on_session_part_lost(session: _Session, name: str) -> None:
        said = await session._supervisord().last_words(name)
        why = f"{name} died" + (f": {said}" if said else "")
        session._lose(SessionLost(why))

    @staticmethod
    async def _on_program_died(session: _Session, name: str) -> None:
        await session._restart(name)

    async def _restart(self, name: str) -> None:
        """See a program come back, each time that it dies; give up when it cannot stay."""
        deaths: list[float] = []
        while True:
            now = time.monotonic()
            deaths = [moment for moment in deaths if now - moment < RESTART_WINDOW_S] + [now]
            if len(deaths) > RESTARTS_MAX:
                said = await self._supervisord().last_words(name)
                self._lose(SessionLost(f"{name} died {len(deaths)} times in a row: {said}"))
                return
            self._tell_display(name, up=False)
            try:
                async with asyncio.timeout(RESTART_TIMEOUT_S):
                    self.pids[name] = await self._supervisord().replaced(name, self.pids[name])
                    if not await self._serves(name):
                        continue
            except (OSError, TimeoutError, SessionError) as error:
                why = str(error) or f"not within {RESTART_TIMEOUT_S:g} s"
                said = await self._supervisord().last_words(name)
                self._lose(SessionLost(f"{name} died and did not come back: {why}; {said}"))
                return
            self._tell_display(name, up=True)
            if name == "x11vnc":
                self._prime_x11vnc()
            self.events.emit(f"{name}.restarted", restarts=len(deaths))
            await exited(self.pids[name])

    async def _serves(self, name: str) -> bool:
        """Whether a program that was just started becomes ready; False when it dies before."""
        if name != "x11vnc":
            return True
        ready = asyncio.ensure_future(x11vnc.ready(self._x11vnc_socket))
        try:
            return await _before_death(ready, self.pids[name])
        finally:
            ready.cancel()

    def _tell_display(self, name: str, *, up: bool) -> None:
        if name == "x11vnc" and self.channel is not None:
            self.channel.set_display_up(up=up)

    def _lose(self, error: SessionLost) -> None:
        if not self.lost.done():
            self.lost.set_result(error)

    # -- small things

    @property
    def _x11vnc_socket(self) -> Path:
        return self.folder / "x11vnc.sock"

    @property
    def _control_socket(self) -> Path:
        return self.folder / "control.sock"

    def _supervisord(self) -> Supervisord:
        if self.supervisord is None:
            raise SessionLost("supervisord does not run")
        return self.supervisord

    def _stream_config(self) -> StreamConfig:
        novnc_dir = self.plan.novnc_dir
        return StreamConfig(
            task_id=self.plan.task_id,
            target=self.plan.target.text,
            started_at=rfc3339(self.started_at),
            key_hex=self.plan.stream_key.hex(),
            x11vnc_socket=str(self._x11vnc_socket),
            novnc_dir=str(novnc_dir) if novnc_dir else None,
            allowed_origins=self.plan.allowed_origins,
        )

    def _set_state(self, state: State) -> None:
        if self.channel is not None:
            self.channel.set_state(state)

    def _address(self) -> dict[str, Any]:
        host, port = self.plan.listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        address: dict[str, Any] = {"host": host, "port": port}
        if self.plan.novnc_dir is not None:
            address["page"] = f"http://{shown}:{port}/"
        return address

    def _mark(self, stage: str) -> None:
        self.stages_ms[stage] = round((time.monotonic() - self.began) * _MS)

    def _duration_s(self) -> float:
        return round(time.monotonic() - self.began, 3)


if TYPE_CHECKING:
    from collections.abc import Callable

    _OnDeath = Callable[[_Session, str], Coroutine[Any, Any, None]]


def _summary(ended: Outcome) -> dict[str, Any]:
    summary: dict[str, Any] = {"status": str(ended.status), "exit_code": ended.exit_code}
    if ended.error is not None:
        summary["error"] = f"{ended.error.type}: {ended.error.message}"
    return summary


def _lost(error: Exception) -> Outcome:
    return outcome.session_lost(TaskError(type=type(error).__name__, message=str(error)))


async def _all(*steps: Awaitable[object]) -> None:
    """Run steps side by side; the first error cancels the others and is raised as it is."""

    async def step_of(step: Awaitable[object]) -> None:
        await step

    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step_of(step))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _before_death(ready: asyncio.Future[Any], pid: int) -> bool:
    """Wait until a program is ready, and raise what that raises; False when it dies before."""
    dead = asyncio.ensure_future(exited(pid))
    try:
        await asyncio.wait([ready, dead], return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
        return ready.done()
    finally:
        dead.cancel()


async def _each(*steps: Awaitable[object]) -> None:
    """Run steps side by side, each to its end: what one breaks must not keep the others."""
    for result in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(result, Exception):
            traceback.print_exception(result)


@contextlib.contextmanager
def _fifo(path: Path) -> Any:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _first_line(descriptor: int, writer_pid: int) -> str:
    """The first line that arrives on a pipe; empty when its writer dies before."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    text = b""
    loop.add_reader(descriptor, arrived.set)
    dead = asyncio.ensure_future(exited(writer_pid))
    try:
        while b"\n" not in text:
            waiting = asyncio.ensure_future(arrived.wait())
            await asyncio.wait([waiting, dead], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not arrived.is_set():
                return ""
            arrived.clear()
            with contextlib.suppress(BlockingIOError):
                text += os.read(descriptor, 64)
    finally:
        loop.remove_reader(descriptor)
        dead.cancel()
    return text.split(b"\n")[0].decode()
