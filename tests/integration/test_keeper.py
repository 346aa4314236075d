"""Start, readiness, restarts and end of programs, on a fake supervisord."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from worker.errors import SessionLost, StartFailed
from worker.process.keeper import REPORTED_RESTARTS, START_EXITS_MAX, ProgramKeeper
from worker.process.program import DELAY_MAX_S, HEALTHY_S, Program
from worker.process.supervisord import ProgramEnd, Supervisord

KILLED = ProgramEnd(None, "it was killed by a signal")


class FakeProcess:
    """supervisord's own process, which runs for as long as the test."""

    async def wait(self) -> int:
        await asyncio.Event().wait()
        return 0


class FakeSupervisord:
    """Starts `sleep`s instead of the programs.

    Attributes:
        refuses: how many of the next starts fail.
        dies: whether a program has ended before its start is answered.
        end: how every program ends.
    """

    def __init__(self) -> None:
        self.process = FakeProcess()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.refuses = 0
        self.dies = False
        self.end = KILLED

    async def start(self, *programs: Program) -> list[int]:
        if self.refuses:
            self.refuses -= 1
            raise SessionLost("supervisord did not answer")
        return [0 if self.dies else self._start(program.name) for program in programs]

    def _start(self, name: str) -> int:
        self.running[name] = subprocess.Popen(["/bin/sleep", "600"])
        return self.running[name].pid

    async def end_of(self, name: str) -> ProgramEnd:
        if name in self.running:
            self.running[name].wait()
        return self.end

    async def output_tail(self, name: str) -> str:
        return f"output of {name}"


class FakeClock:
    """A clock that `sleep` sets forward; it records how long it slept."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.now += delay_s
        await asyncio.sleep(0)


class Recorded:
    """A program whose calls are recorded."""

    def __init__(self, *, restart: bool = True) -> None:
        self.calls: list[tuple[str, int]] = []
        self.is_ready = asyncio.Event()
        self.is_ready.set()
        self.program = Program(
            name="a",
            command=["a"],
            restart=restart,
            ready=self.is_ready.wait,
            on_start=lambda pid: self.calls.append(("start", pid)),
            on_up=lambda pid: self.calls.append(("up", pid)),
            on_down=lambda pid: self.calls.append(("down", pid)),
        )


@pytest.fixture
async def supervisord() -> AsyncIterator[FakeSupervisord]:
    fake = FakeSupervisord()
    yield fake
    for process in fake.running.values():
        process.kill()
        process.wait()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[str]:
    """What the keeper has reported."""
    return []


@pytest.fixture
async def keeper(
    supervisord: FakeSupervisord, clock: FakeClock, events: list[str]
) -> AsyncIterator[ProgramKeeper]:
    keeper = ProgramKeeper(
        supervisord=cast("Supervisord", supervisord),
        emit=lambda name, **fields: events.append(f"{name} {fields['restarts']}"),
        on_change=lambda: None,
        lost=asyncio.get_running_loop().create_future(),
        on_lost=lambda name, why: events.append(f"lost {name}: {why}"),
        on_back=lambda name: events.append(f"back {name}"),
        clock=lambda: clock.now,
        sleep=clock.sleep,
    )
    yield keeper
    keeper.unwatch()
    await keeper.stop("a")


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def kill(keeper: ProgramKeeper, times: int = 1) -> None:
    """Kill a kept program, and wait for its return, so often."""
    for _ in range(times):
        restarts = keeper.restarts["a"]
        os.kill(keeper.pids["a"], signal.SIGKILL)
        await eventually(lambda restarts=restarts: keeper.restarts["a"] > restarts)


async def kept(keeper: ProgramKeeper, recorded: Recorded) -> int:
    """Start a program and keep it; its first process id."""
    await keeper.start(recorded.program)
    await keeper.ready(recorded.program)
    keeper.keep(recorded.program)
    return keeper.pids["a"]


async def test_a_ready_program_is_up_with_its_process_id(keeper: ProgramKeeper) -> None:
    recorded = Recorded()
    pid = await kept(keeper, recorded)
    assert recorded.calls == [("start", pid), ("up", pid)]


# -- before it was ever ready


async def test_a_program_that_is_killed_before_it_is_ready_is_restarted(
    keeper: ProgramKeeper, events: list[str], clock: FakeClock
) -> None:
    recorded = Recorded()
    recorded.is_ready.clear()
    await keeper.start(recorded.program)
    becoming = asyncio.ensure_future(keeper.ready(recorded.program))
    for _ in range(START_EXITS_MAX + 1):
        pid = keeper.pids["a"]
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda pid=pid: keeper.pids.get("a", pid) != pid)
    assert keeper.ended_before_ready() == {"a": START_EXITS_MAX + 1}
    recorded.is_ready.set()
    await becoming
    assert clock.slept[:2] == [0.0, 0.1]
    assert events == [f"a.restarted {START_EXITS_MAX + 1}"]
    assert keeper.ended_before_ready() == {}
    downs = [pid for call, pid in recorded.calls if call == "down"]
    assert len(set(downs)) == START_EXITS_MAX + 1  # each one's shared memory is released


async def test_a_program_that_has_ended_before_its_start_is_answered_is_restarted(
    keeper: ProgramKeeper, supervisord: FakeSupervisord
) -> None:
    recorded = Recorded()
    supervisord.dies = True
    await keeper.start(recorded.program)
    supervisord.dies = False
    await keeper.ready(recorded.program)
    assert keeper.restarts == {"a": 1}


@pytest.mark.parametrize(("status", "starts"), [(1, START_EXITS_MAX), (126, 1), (127, 1)])
async def test_a_program_that_exits_by_itself_has_not_started(
    keeper: ProgramKeeper, supervisord: FakeSupervisord, status: int, starts: int
) -> None:
    """After several times, or at once if it cannot be executed."""
    recorded = Recorded()
    supervisord.dies = True
    supervisord.end = ProgramEnd(status, f"it exited with status {status}")
    await keeper.start(recorded.program)
    with pytest.raises(StartFailed, match=f"status {status}; last output: output of a"):
        await keeper.ready(recorded.program)
    assert recorded.calls == [("start", 0), ("down", 0)] * starts


@pytest.mark.parametrize(
    ("end", "error"), [(KILLED, SessionLost), (ProgramEnd(1, "it exited"), StartFailed)]
)
async def test_a_program_that_may_not_be_restarted_ends_the_start(
    keeper: ProgramKeeper, supervisord: FakeSupervisord, end: ProgramEnd, error: type[Exception]
) -> None:
    recorded = Recorded(restart=False)
    recorded.is_ready.clear()
    supervisord.end = end
    await keeper.start(recorded.program)
    os.kill(keeper.pids["a"], signal.SIGKILL)
    with pytest.raises(error, match="output of a"):
        await keeper.ready(recorded.program)


# -- while it is kept


async def test_a_program_that_dies_is_restarted(keeper: ProgramKeeper, events: list[str]) -> None:
    recorded = Recorded()
    first = await kept(keeper, recorded)
    await kill(keeper)
    second = keeper.pids["a"]
    assert recorded.calls == [
        *(("start", first), ("up", first), ("down", first)),
        *(("start", second), ("up", second)),
    ]
    assert events == ["lost a: it was killed by a signal", "a.restarted 1", "back a"]


async def test_a_crash_loop_never_ends_the_session_and_is_slow(
    keeper: ProgramKeeper, clock: FakeClock, events: list[str]
) -> None:
    """The delay grows to its maximum; the reports become rare; nothing is left of it."""
    recorded = Recorded()
    await kept(keeper, recorded)
    await kill(keeper, 40)
    assert not keeper.lost.done()
    assert keeper.restarts == {"a": 40}
    assert clock.slept[0] == 0.0
    assert clock.slept == sorted(clock.slept)
    assert clock.slept[-1] == DELAY_MAX_S
    reports = [event for event in events if event.startswith("a.restarted")]
    in_a_row = [*range(1, REPORTED_RESTARTS + 1), 16, 32]
    assert reports == [f"a.restarted {count}" for count in in_a_row]
    pids = {pid for _, pid in recorded.calls}
    for call in ("start", "up"):
        assert {pid for name, pid in recorded.calls if name == call} == pids
    assert {pid for name, pid in recorded.calls if name == "down"} == pids - {keeper.pids["a"]}
    assert len(keeper._watchers) == 2
    assert not keeper._starts


async def test_a_healthy_program_is_restarted_at_once(
    keeper: ProgramKeeper, clock: FakeClock
) -> None:
    recorded = Recorded()
    await kept(keeper, recorded)
    await kill(keeper, 5)
    clock.now += HEALTHY_S
    await kill(keeper)
    assert clock.slept[-2:] == [0.8, 0.0]


async def test_a_restart_that_supervisord_does_not_carry_out_is_tried_again(
    keeper: ProgramKeeper, supervisord: FakeSupervisord, clock: FakeClock
) -> None:
    """For example because supervisord was stopped by a signal."""
    recorded = Recorded()
    await kept(keeper, recorded)
    supervisord.refuses = 3
    await kill(keeper)
    assert clock.slept == [0.0, 0.1, 0.2, 0.4]
    assert not keeper.lost.done()


async def test_a_restarted_program_that_is_not_ready_in_time_is_killed_and_restarted(
    keeper: ProgramKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.process.keeper.RESTART_READY_TIMEOUT_S", 0.05)
    recorded = Recorded()
    first = await kept(keeper, recorded)
    recorded.is_ready.clear()
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: recorded.calls[3:4])
    await eventually(lambda: recorded.calls[5:6])
    (_, second), (down, also_second) = recorded.calls[3:5]
    assert (down, second) == ("down", also_second)
    recorded.is_ready.set()
    await eventually(lambda: keeper.restarts["a"] == 1)
    assert not keeper.lost.done()


async def test_the_death_of_a_program_that_cannot_be_replaced_is_a_loss(
    keeper: ProgramKeeper,
) -> None:
    pid = await kept(keeper, Recorded(restart=False))
    os.kill(pid, signal.SIGKILL)
    lost = await asyncio.wait_for(keeper.lost, 10)
    assert isinstance(lost, SessionLost)
    assert str(lost) == "a died: output of a"


# -- the end


async def test_a_stopped_program_is_down_and_not_restarted(keeper: ProgramKeeper) -> None:
    recorded = Recorded()
    pid = await kept(keeper, recorded)
    keeper.unwatch()
    await keeper.stop("a", "never started")
    assert recorded.calls == [("start", pid), ("up", pid), ("down", pid)]
    assert not keeper.lost.done()


async def test_a_program_whose_start_was_cancelled_is_stopped_too(
    keeper: ProgramKeeper, supervisord: FakeSupervisord
) -> None:
    """A cancelled call to supervisord is still carried out."""
    recorded = Recorded()
    starting = asyncio.ensure_future(keeper.start(recorded.program))
    await asyncio.sleep(0)
    starting.cancel()
    await keeper.stop("a")
    await keeper.stop("a")
    assert supervisord.running["a"].wait() == -signal.SIGTERM
    assert [call for call, _ in recorded.calls] == ["start", "down"]


async def test_a_retired_program_can_be_started_again(keeper: ProgramKeeper) -> None:
    recorded = Recorded(restart=False)
    for _ in range(2):
        await keeper.start(recorded.program)
        await keeper.ready(recorded.program)
        assert await keeper.retire(recorded.program) == KILLED
    assert [call for call, _ in recorded.calls] == ["start", "up", "down"] * 2
