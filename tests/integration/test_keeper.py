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
from worker.process.keeper import RESTARTS_MAX, ProgramKeeper
from worker.process.program import Program
from worker.process.supervisord import Supervisord


class FakeProcess:
    """supervisord's own process, which runs for as long as the test."""

    async def wait(self) -> int:
        await asyncio.Event().wait()
        return 0


class FakeSupervisord:
    """Starts `sleep`s instead of the programs, and replaces those that have died."""

    def __init__(self) -> None:
        self.process = FakeProcess()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.replaces = True

    async def start(self, *programs: Program) -> list[int]:
        return [self._start(program.name) for program in programs]

    def _start(self, name: str) -> int:
        self.running[name] = subprocess.Popen(["/bin/sleep", "600"])
        return self.running[name].pid

    async def replaced(self, name: str, dead_pid: int) -> int:
        self.running[name].wait()
        if not self.replaces:
            await asyncio.Event().wait()
        return self._start(name)

    async def output_tail(self, name: str) -> str:
        return f"output of {name}"

    async def stop(self, program: Program, pid: int) -> None:
        self.running[program.name].kill()
        self.running[program.name].wait()


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
async def keeper(supervisord: FakeSupervisord) -> AsyncIterator[ProgramKeeper]:
    keeper = ProgramKeeper(
        supervisord=cast("Supervisord", supervisord),
        emit=lambda name, **fields: None,
        on_change=lambda: None,
        lost=asyncio.get_running_loop().create_future(),
    )
    yield keeper
    keeper.unwatch()


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def test_a_ready_program_is_up_with_its_process_id(keeper: ProgramKeeper) -> None:
    recorded = Recorded()
    await keeper.start(recorded.program)
    await keeper.ready(recorded.program)
    assert recorded.calls == [("up", keeper.pids["a"])]


async def test_a_program_that_ends_before_it_is_ready_has_not_started(
    keeper: ProgramKeeper,
) -> None:
    recorded = Recorded()
    recorded.is_ready.clear()
    await keeper.start(recorded.program)
    os.kill(keeper.pids["a"], signal.SIGKILL)
    with pytest.raises(StartFailed, match="output of a"):
        await keeper.ready(recorded.program)
    assert recorded.calls == []


async def test_a_program_that_dies_is_restarted(keeper: ProgramKeeper) -> None:
    recorded = Recorded()
    await keeper.start(recorded.program)
    await keeper.ready(recorded.program)
    keeper.keep(recorded.program)
    first = keeper.pids["a"]
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: keeper.restarts["a"] == 1)
    assert recorded.calls == [("up", first), ("down", first), ("up", keeper.pids["a"])]
    assert not keeper.lost.done()


async def test_a_restarted_program_may_be_slow_to_be_ready(
    keeper: ProgramKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only supervisord's restart has a deadline."""
    monkeypatch.setattr("worker.process.keeper.RESTART_TIMEOUT_S", 0.5)
    recorded = Recorded()
    await keeper.start(recorded.program)
    await keeper.ready(recorded.program)
    keeper.keep(recorded.program)
    recorded.is_ready.clear()
    first = keeper.pids["a"]
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: keeper.pids["a"] != first)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(keeper.lost), 1)
    recorded.is_ready.set()
    await eventually(lambda: keeper.restarts["a"] == 1)


async def test_a_program_that_dies_again_and_again_is_lost(keeper: ProgramKeeper) -> None:
    recorded = Recorded()
    await keeper.start(recorded.program)
    await keeper.ready(recorded.program)
    keeper.keep(recorded.program)
    for count in range(RESTARTS_MAX):
        os.kill(keeper.pids["a"], signal.SIGKILL)
        await eventually(lambda count=count: keeper.restarts["a"] == count + 1)
    os.kill(keeper.pids["a"], signal.SIGKILL)
    assert "times in a row" in str(await asyncio.wait_for(keeper.lost, 10))


async def test_the_death_of_a_program_that_cannot_be_replaced_is_a_loss(
    keeper: ProgramKeeper,
) -> None:
    recorded = Recorded(restart=False)
    await keeper.start(recorded.program)
    await keeper.ready(recorded.program)
    keeper.keep(recorded.program)
    os.kill(keeper.pids["a"], signal.SIGKILL)
    lost = await asyncio.wait_for(keeper.lost, 10)
    assert isinstance(lost, SessionLost)
    assert str(lost) == "a died: output of a"


async def test_a_stopped_program_is_down_and_not_restarted(keeper: ProgramKeeper) -> None:
    recorded = Recorded()
    await keeper.start(recorded.program)
    await keeper.ready(recorded.program)
    keeper.keep(recorded.program)
    pid = keeper.pids["a"]
    keeper.unwatch()
    await keeper.stop("a", "never started")
    assert recorded.calls == [("up", pid), ("down", pid)]
    assert not keeper.lost.done()
