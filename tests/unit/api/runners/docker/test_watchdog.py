"""The docker runner's watchdog: which containers it ends."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.api.runners.background import Loops
from worker.api.runners.docker.watchdog import ContainerWatchdog, Limits

TIMEOUT_S, MARGIN_S = 60.0, 90.0
LIMIT_S = TIMEOUT_S + MARGIN_S


@dataclasses.dataclass
class Container:
    id: str = "one"
    task_id: str = "task"
    running: bool = True
    cancelled_at: datetime | None = None
    overdue_name: str = "one.overdue"


@dataclasses.dataclass
class Record:
    started_at: datetime | None
    timeout_s: float | None = TIMEOUT_S


class Machine:
    """An engine with one container, and the time."""

    def __init__(self, age_s: float = 0.0) -> None:
        self.now_s = 1000.0
        self.ended: list[str] = []
        self.client = self
        self.stopping = self
        self.rename = self.stop = None
        self._record = Record(datetime.now(UTC) - timedelta(seconds=age_s))
        self.watchdog = ContainerWatchdog(
            self,
            self,
            Limits(margin_s=MARGIN_S),
            Loops(lambda *_, **__: None),
            monotonic=lambda: self.now_s,
        )

    async def record(self, _: Any) -> Record:
        return self._record

    async def call_if_present(self, _: Any, container_id: str, *__: Any, **___: Any) -> None:
        self.ended.append(container_id)

    async def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1
            await self.watchdog.check([Container()])  # type: ignore[list-item]


@pytest.mark.parametrize("age_s", [0.0, 100.0])
async def test_a_container_is_ended_after_its_time(age_s: float) -> None:
    """The time before the watchdog has seen it counts too."""
    machine = Machine(age_s)
    await machine.pass_time(int(LIMIT_S - age_s) - 5)
    assert not machine.ended
    await machine.pass_time(10)
    assert machine.ended


async def test_a_suspension_of_the_machine_does_not_count() -> None:
    machine = Machine()
    for _ in range(5):
        await machine.pass_time(10)
        machine.now_s += 3600
    assert not machine.ended
    await machine.pass_time(int(LIMIT_S))
    assert machine.ended
