"""Runs one task from start to clean-up."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from worker import artifacts, outcome
from worker.errors import SessionError, StartFailed
from worker.events import rfc3339
from worker.net import netloc
from worker.outcome import Outcome, TaskError
from worker.process.children import Children
from worker.session import prelaunch
from worker.session.control import ControlDisplay
from worker.session.display_stack import DisplayStack
from worker.session.leftovers import Leftovers
from worker.session.stream_channel import StreamChannel
from worker.session.stream_status import StreamStatus
from worker.stream.messages import Facts, State, StreamConfig
from worker.stream.tokens import Role
from worker.task import process

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Mapping
    from pathlib import Path

    from worker.events import Events
    from worker.session.plan import Plan
    from worker.session.prelaunch import Prelaunched
    from worker.task.process import Task

START_TIMEOUT_S: Final = 20.0
SWEEP_GRACE_S: Final = 0.5
SWEEP_LIMIT_S: Final = 4.0
# The sum of these, and of the viewers' 3 s, is less than the 25 s that are documented. To remove
# the folder, which takes long for many or large files, there is the rest, typically 22 s.
_END_LIMIT_S: Final = 23.0
_STOP_TASK_LIMIT_S: Final = 5.0
_STOP_DISPLAY_LIMIT_S: Final = 5.0
_LAST_SWEEP_LIMIT_S: Final = 3.0
_REMOVE_LIMIT_S: Final = 2.0
_STALE_LIMIT_S: Final = 1.0
_MARGIN_S: Final = 0.2
EVENT_ERROR_MAX_CHARS: Final = 10_000
SIGNAL_OUTCOMES: Final = {
    signal.SIGTERM: outcome.cancelled(outcome.EXIT_SIGTERM),
    signal.SIGINT: outcome.cancelled(outcome.EXIT_SIGINT),
    outcome.DISK_FULL_SIGNAL: outcome.disk_full(),
}
_VIEWERS_GONE_S: Final = 3.0
_MS: Final = 1000


async def run(plan: Plan, prelaunched: Prelaunched, events: Events, stop: Stop) -> Outcome:
    """Run one task to its end; no process, socket or temporary folder of it is left.

    Args:
        plan: what to run.
        prelaunched: what of it was started already.
        events: the event log.
        stop: is set when a signal requests the end.
    """
    session = _Session(plan, prelaunched, events, stop)
    try:
        ended = await session.run()
    except Exception as error:  # a defect of ours: print it, and still clean up
        traceback.print_exc()
        ended = session.outcome or _lost(error)
    left = await session.clean_up()
    session.report_finish(ended, left)
    return ended


class Stop:
    """The request to end, by a signal; the first signal decides the outcome."""

    def __init__(self, early_signal: int | None = None) -> None:
        """Handle signals from now on, inside a running event loop.

        Args:
            early_signal: one that arrived before there was a loop.
        """
        loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[Outcome] = loop.create_future()
        for number in SIGNAL_OUTCOMES:
            loop.add_signal_handler(number, self._on_signal, number)
        if early_signal is not None:
            self._on_signal(early_signal)

    def _on_signal(self, signal_number: int) -> None:
        if not self._outcome.done():
            self._outcome.set_result(SIGNAL_OUTCOMES[signal.Signals(signal_number)])

    async def requested(self) -> Outcome:
        """Wait for the request; returns the outcome that it means."""
        return await asyncio.shield(self._outcome)


class _Session:
    def __init__(self, plan: Plan, prelaunched: Prelaunched, events: Events, stop: Stop) -> None:
        self.plan, self.prelaunched, self.events, self.stop = plan, prelaunched, events, stop
        child = prelaunched.child
        self.children = Children(
            [prelaunched.supervisord.process, *([] if child is None else [child.process])]
        )
        self.started_at = datetime.now(UTC)
        self.stages_ms: dict[str, int] = {}
        self.channel: StreamChannel | None = None
        self.task: Task | None = None
        self.held: Outcome | None = None
        self.outcome: Outcome | None = None
        self._ends_at = 0.0
        self.leftovers = Leftovers(prelaunched.folder, self.children, events.emit)
        self.status = StreamStatus(self._stream_ready, self._stream_lost)
        self.stack = DisplayStack(
            prelaunched=prelaunched,
            supervisord=self.children.adopt(prelaunched.supervisord.process),
            events=events,
            status=self.status,
            mark=self._mark,
            on_change=self._report_facts,
            on_x11vnc=self._report_display,
        )
        self.control = ControlDisplay(self.stack, events)

    async def run(self) -> Outcome:
        """Start everything, run the task, and close the viewers with its outcome."""
        self.events.emit(
            "worker.started", target=self.plan.target.text, folder=str(self.prelaunched.folder)
        )
        for notice in self.plan.notices:
            self.events.emit(notice.event, **notice.fields)
        ended = self.outcome = await self._until_stopped(self._start_and_run())
        self._ends_at = asyncio.get_running_loop().time() + _END_LIMIT_S
        self._mark("task")
        self._write_result(ended)
        if self.channel is not None:
            self.channel.end(ended.close)  # before the event: its readers must not be admitted
        self.events.emit("task.finished", **_summary(ended))
        await self._viewers_gone()
        return ended

    async def _start_and_run(self) -> Outcome:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                task = await self._start()
        except TimeoutError:
            why = f"it took longer than {START_TIMEOUT_S:g} s{self.stack.not_ready()}"
            raise StartFailed("the session", why) from None
        except SessionError:
            await self.stack.loss_reported()
            raise
        self._mark("start")
        try:
            async with asyncio.timeout(self.plan.timeout_s):
                self.events.emit("task.starting")
                await task.go()
                self.events.emit("task.started", target=self.plan.target.text)
                self.leftovers.remove_stale()
                ended = await task.ended()
        except TimeoutError:
            return outcome.timed_out(self.plan.timeout_s)
        self.held = ended  # a signal from now on does not change it
        if ended.error is not None:
            await self.stack.loss_reported()
        if self.plan.hold_s:
            self.events.emit("task.held", hold_s=self.plan.hold_s, **_summary(ended))
            await asyncio.sleep(self.plan.hold_s)
        return ended

    async def _until_stopped(self, running: Coroutine[Any, Any, Outcome]) -> Outcome:
        """The outcome of `running`, unless a signal or the loss of the display ends it first."""
        ran = asyncio.ensure_future(running)
        requested = asyncio.ensure_future(self.stop.requested())
        ends: tuple[asyncio.Future[Any], ...] = (ran, requested, self.stack.lost)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        try:
            if self.stack.lost.done():
                return _lost(self.stack.lost.result())
            if ran.done():
                return ran.result()
            return self.held or requested.result()
        except SessionError as error:
            return _lost(error)
        except Exception as error:  # a defect of ours: print it, and still clean up
            traceback.print_exc()
            return _lost(error)
        finally:
            for future in (ran, requested):
                future.cancel()
            await asyncio.wait([ran, requested])

    async def _start(self) -> Task:
        """Start everything that can start in parallel; returns when all of it is ready."""
        started = self.prelaunched
        self.task = await process.start(started.task, started.child, self.children)
        child = None if started.child is None else started.child.process.pid
        confined = asyncio.ensure_future(self.leftovers.confine(child))
        self.channel = StreamChannel(
            path=self.stack.folder / prelaunch.STREAM_SOCKET,
            config=self._stream_config(),
            listener=self.plan.listener,
            displays={Role.VIEW: self.stack.x11vnc, Role.CONTROL: self.control},
            emit=self.events.emit,
            programs=self.stack,
        )
        await self.stack.start_display(self.channel.listening, self.channel.expect)
        self.leftovers.record_display(self.stack.display)
        await self.stack.start_clients()
        await _all(self._prepare_task(self.task), self._open_stream(self.channel), confined)
        return self.task

    async def _prepare_task(self, task: Task) -> None:
        await self.stack.window_manager_ready()
        await task.prepare(self.stack.display, str(self.stack.authority))
        self._mark("task_ready")

    async def _open_stream(self, channel: StreamChannel) -> None:
        """Admit viewers: the first ones see the browser open."""
        await _all(self.stack.websockify_ready(), self.stack.x11vnc_ready())
        channel.set_state(State.RUNNING)
        self._mark("stream_ready")
        self.status.opened()

    def _stream_ready(self) -> None:
        self.events.emit("stream.ready", **self._address())

    def _stream_lost(self, program: str, why: str) -> None:
        self.events.emit("stream.lost", program=program, why=why)

    # -- the end

    async def _viewers_gone(self) -> None:
        """Wait until every viewer's stream is closed, or does not answer."""
        if self.channel is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_VIEWERS_GONE_S):
                    await self.channel.viewers_gone.wait()
        self._mark("viewers_told")

    async def clean_up(self) -> dict[str, Any]:
        """Stop everything, whatever fails; returns the fields that describe what is left."""
        self.stack.unwatch()
        await _each(
            _STOP_TASK_LIMIT_S + SWEEP_LIMIT_S + _MARGIN_S,
            self._stop_task(),
            self.control.close(),
            self.stack.stop("x11vnc", "window_manager"),
        )
        await _each(_STOP_DISPLAY_LIMIT_S, self._stop_display())
        sweep = self.children.sweep(grace_s=SWEEP_GRACE_S, limit_s=_LAST_SWEEP_LIMIT_S)
        await _each(_LAST_SWEEP_LIMIT_S + _MARGIN_S, sweep)
        left: dict[str, Any] = {}
        await _each(_MARGIN_S, self._clear_away(left))
        remove_s = max(_REMOVE_LIMIT_S, self._ends_at - asyncio.get_running_loop().time())
        await _each(remove_s + _MARGIN_S, self.leftovers.remove(left, remove_s))
        await _each(_STALE_LIMIT_S, self.leftovers.remove_stale())
        self._mark("cleared_away")
        return left

    async def _clear_away(self, left: dict[str, Any]) -> None:
        if processes := self.children.left():
            left["left"] = processes
        self.stack.remove_display_socket()
        self.plan.listener.close()

    async def _stop_task(self) -> None:
        if self.task is not None:
            await _each(_STOP_TASK_LIMIT_S, self.task.stop())
        await self.leftovers.confined()
        await self.children.sweep(
            spare=(self.stack.supervisord_pid,), grace_s=SWEEP_GRACE_S, limit_s=SWEEP_LIMIT_S
        )
        self._mark("task_stopped")

    async def _stop_display(self) -> None:
        await self.stack.stop("xvfb")
        if self.channel is not None:
            self.channel.quit()
        await self.stack.stop("websockify")
        if self.channel is not None:
            self.channel.close()
        await self.stack.shut_down()
        self._mark("display_stopped")

    def report_finish(self, ended: Outcome, left: Mapping[str, Any]) -> None:
        """Write the last event; exactly once."""
        self.events.emit(
            "worker.finished",
            **_summary(ended),
            **left,
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
        target = self.plan.artifacts.result
        try:
            self.plan.artifacts.write_result(artifacts.result_text(result))
        except Exception as error:  # a full disk, or memory; the outcome remains the task's
            self._report_result_failed(target, error)
        if self.plan.termination_log is None:
            return
        try:
            artifacts.write_termination_message(self.plan.termination_log, result)
        except Exception as error:  # the same
            self._report_result_failed(self.plan.termination_log, error)

    def _report_result_failed(self, path: Path, error: Exception) -> None:
        why = str(error) or type(error).__name__
        self.events.emit("result.failed", path=str(path), why=why)
        with contextlib.suppress(OSError, ValueError):  # stderr may be on the same full disk
            print(f"worker: cannot write the result: {why}", file=sys.stderr)  # noqa: T201

    # -- what the stream server needs

    def _stream_config(self) -> StreamConfig:
        novnc_dir = self.plan.novnc_dir
        return StreamConfig(
            task_id=self.plan.task_id,
            target=self.plan.target.text,
            started_at=rfc3339(self.started_at),
            key_hex=self.plan.stream_key.hex(),
            x11vnc_socket=str(self.stack.x11vnc.unix_socket),
            x11vnc_control_socket=str(self.control.x11vnc.unix_socket),
            max_viewers=self.plan.max_viewers,
            novnc_dir=str(novnc_dir) if novnc_dir else None,
            allowed_origins=self.plan.allowed_origins,
            trusted_proxies=self.plan.trusted_proxies,
        )

    def _report_facts(self) -> None:
        if self.channel is not None:
            self.channel.set_facts(
                Facts(
                    stages_ms=self.stages_ms,
                    restarts=self.stack.restarts,
                    pids={"worker": os.getpid(), **self.stack.pids},
                )
            )

    def _report_display(self) -> None:
        if self.channel is not None:
            x11vnc = self.stack.x11vnc
            self.channel.set_display(up=x11vnc.up, settled=x11vnc.settled)

    def _address(self) -> dict[str, Any]:
        host, port = self.plan.listener.getsockname()[:2]
        address: dict[str, Any] = {"host": host, "port": port}
        if self.plan.novnc_dir is not None:
            address["page"] = f"http://{netloc(host, port)}/"
        return address

    # -- times

    def _mark(self, stage: str) -> None:
        self.stages_ms[stage] = round((time.monotonic() - self.prelaunched.began) * _MS)
        self._report_facts()

    def _duration_s(self) -> float:
        return round(time.monotonic() - self.prelaunched.began, 3)


def _summary(ended: Outcome) -> dict[str, Any]:
    summary: dict[str, Any] = {"status": str(ended.status), "exit_code": ended.exit_code}
    if ended.error is not None:
        text = f"{ended.error.type}: {ended.error.message}"
        is_long = len(text) > EVENT_ERROR_MAX_CHARS
        summary["error"] = f"{text[:EVENT_ERROR_MAX_CHARS]}…" if is_long else text
    return summary


def _lost(error: Exception) -> Outcome:
    return outcome.session_lost(TaskError(type=type(error).__name__, message=str(error)))


async def _all(*steps: Awaitable[object]) -> None:
    """Run steps in parallel; the first error cancels the others and is raised."""

    async def step_of(step: Awaitable[object]) -> None:
        await step

    try:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(step_of(step))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _each(limit_s: float, *steps: Awaitable[object]) -> None:
    """Run steps in parallel, each to its end, or for `limit_s`: no error stops the others."""
    running = [asyncio.ensure_future(step) for step in steps]
    _, late = await asyncio.wait(running, timeout=limit_s)
    for step in late:
        step.cancel()
    for result in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(result, Exception):
            traceback.print_exception(result)
