"""Starts queued containers and removes ended ones after the retention time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from worker.api.runners.docker.container import UNSTARTABLE, Container
from worker.api.runners.docker.engine import EngineError
from worker.api.runners.fairness import Turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.api.runners.availability import Availability
    from worker.api.runners.docker.engine import Engine
    from worker.api.runners.docker.task_containers import TaskContainers
    from worker.api.runners.fairness import Capacity

_POLL_S: Final = 0.5
_SWEEP_S: Final = 60.0


class ContainerQueue:
    """Reads the list of containers when it is woken, and regularly while tasks are queued."""

    def __init__(
        self,
        engine: Engine,
        containers: TaskContainers,
        availability: Availability,
        *,
        capacity: Capacity,
        retention_s: float,
    ) -> None:
        self._engine = engine
        self._containers = containers
        self._availability = availability
        self._capacity = capacity
        self._turns = Turns(capacity)
        self._retention = timedelta(seconds=retention_s)
        self._woken = asyncio.Event()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock_of(self, task_id: str) -> asyncio.Lock:
        """The lock under which a task's container is created, started and cancelled."""
        return self._locks.setdefault(task_id, asyncio.Lock())

    def wake(self) -> None:
        """Have `run` read the list of containers now."""
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled; continue after an engine did not answer."""
        loop = asyncio.get_running_loop()
        swept_at = -_SWEEP_S
        while True:
            self._woken.clear()
            tasks_left = True
            with self._availability.track():
                containers = await self._containers.matching()
                tasks_left = await self._start_queued(containers)
                if loop.time() - swept_at >= _SWEEP_S:
                    await self._sweep(containers)
                    swept_at = loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S if tasks_left else _SWEEP_S):
                    await self._woken.wait()

    async def _start_queued(self, containers: Sequence[Container]) -> bool:
        """Start as many as may run; whether queued ones are left."""
        queued = [each for each in containers if each.queued]
        running = Counter(each.account for each in containers if each.running)
        free = self._capacity.max_running - running.total()
        chosen = next_to_start(queued, running, free, self._turns)
        await asyncio.gather(*(self._start(each) for each in chosen))
        return len(chosen) < len(queued)

    async def _start(self, container: Container) -> None:
        client = self._engine.client
        async with self.lock_of(container.task_id):
            current = await self._containers.of_task(container.task_id)
            if current is None or not current.queued:
                return  # it was cancelled since the list was read
            try:
                await self._engine.call_once(client.start, container.id)
            except EngineError:
                name = container.task_id + UNSTARTABLE  # the engine keeps the reason
                await self._engine.call_if_present(client.rename, container.id, name)

    async def _sweep(self, containers: Sequence[Container]) -> None:
        remove = self._engine.client.remove_container
        if not self._retention:
            return  # without a limit
        for each in containers:
            if not each.ended:
                continue
            task = await self._containers.record(each)
            if task is None or task.finished_at is None:
                continue
            if datetime.now(UTC) - task.finished_at > self._retention:
                await self._engine.call_if_present(remove, each.id, v=True)
                self._containers.forget(each)


def next_to_start(
    queued: Sequence[Container], running: Mapping[str, int], free: int, turns: Turns
) -> list[Container]:
    """The oldest queued containers of the accounts whose turn it is, at most `free` of them."""
    waiting: dict[str, deque[Container]] = {}
    for each in sorted(queued, key=lambda each: each.cursor):
        waiting.setdefault(each.account, deque()).append(each)
    counts = Counter(running)
    chosen: list[Container] = []
    while len(chosen) < free:
        oldest = {account: each[0].cursor for account, each in waiting.items() if each}
        account = turns.take(oldest, counts)
        if account is None:
            break
        counts[account] += 1
        chosen.append(waiting[account].popleft())
    return chosen
