"""Ends containers whose worker exceeds its task's timeout by far."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from worker.api.runners.background import BackgroundTasks, Rounds
from worker.attended.clock import TICK_S, AttendedClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.api.runners.background import Loops
    from worker.api.runners.docker.container import Container
    from worker.api.runners.docker.engine import Engine
    from worker.api.runners.docker.task_containers import TaskContainers

NAME: Final = "watchdog"
MARGIN_S: Final = 90.0
"""Added to a task's timeout: 20 s for the start, 25 s for the end, and as much again."""
GRACE_S: Final = 30
_CACHED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The time that a container may take.

    Attributes:
        margin_s: added to its task's timeout.
        grace_s: from SIGTERM to SIGKILL.
        period_s: between two checks.
    """

    margin_s: float = MARGIN_S
    grace_s: int = GRACE_S
    period_s: float = 15.0


class ContainerWatchdog:
    """Ends overdue containers.

    A worker enforces its task's timeout and limits of its own, so only one that hangs or is stopped
    (SIGSTOP) exceeds the watchdog's limit. Time in which the API's process did not run either,
    because the machine was suspended, does not count.
    """

    def __init__(
        self,
        engine: Engine,
        containers: TaskContainers,
        limits: Limits,
        loops: Loops,
        monotonic: Callable[[], float] = time.monotonic,
        rounds: Rounds | None = None,
    ) -> None:
        self._engine = engine
        self._containers = containers
        self._limits = limits
        self._loops = loops
        self._rounds = rounds or Rounds(BackgroundTasks(loops))
        """One for each container."""
        self._clock = AttendedClock(monotonic)
        self._deadlines: OrderedDict[str, float] = OrderedDict()

    async def iterate(self) -> None:
        """Check all containers.

        Raises:
            RunnerUnavailable: the engine does not answer; the queue reports it.
        """
        await self.check(await self._containers.matching())

    async def pause(self) -> None:
        """Return when the next check is to begin."""
        until = self._clock() + self._limits.period_s
        while True:
            left_s = until - self._clock()
            if left_s <= 0:
                return
            await asyncio.sleep(min(left_s, TICK_S))

    async def check(self, containers: Sequence[Container]) -> None:
        """End those of these containers that are overdue.

        It returns when they have ended, or after a period: those that take longer delay no other.
        """
        for each in containers:
            if each.running:
                self._rounds.begin(each.id, partial(self._check, each))
        await self._rounds.wait(self._limits.period_s)

    async def _check(self, container: Container) -> None:
        with self._loops.handling(NAME, container.task_id):
            if await self._is_overdue(container):
                await self._end(container)

    async def _is_overdue(self, container: Container) -> bool:
        deadline = self._deadlines.get(container.id)
        if deadline is None:
            task = await self._containers.record(container)
            if task is None or task.started_at is None or task.timeout_s is None:
                return False
            limit_s = task.timeout_s + self._limits.margin_s
            deadline = self._clock() + limit_s - _age_s(task.started_at)
            self._deadlines[container.id] = deadline
            if len(self._deadlines) > _CACHED_MAX:
                self._deadlines.popitem(last=False)
        return self._clock() > deadline

    async def _end(self, container: Container) -> None:
        """The name is changed first: after a restart of the API it states why the worker ended."""
        client = self._engine.client
        if container.cancelled_at is None:
            name = container.overdue_name
            await self._engine.call_if_present(client.rename, container.id, name)
        grace_s = self._limits.grace_s
        stop = self._engine.stopping.call_if_present
        await stop(client.stop, container.id, timeout=grace_s)
        self._deadlines.pop(container.id, None)


def _age_s(started_at: datetime) -> float:
    """The time since a container's start, at least 0, without the suspensions of the machine.

    Also without those before its start: at worst it gets its whole time once more from an API that
    was restarted.
    """
    suspended_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return max(0.0, (datetime.now(UTC) - started_at).total_seconds() - suspended_s)
