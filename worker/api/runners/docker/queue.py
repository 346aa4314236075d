"""The queue of containers: it starts the oldest, and removes what is old."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from worker.api.runners.docker.container import UNSTARTABLE, Container
from worker.api.runners.docker.engine import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.api.runners.availability import Availability
    from worker.api.runners.docker.containers import Containers
    from worker.api.runners.docker.engine import Engine

_TICK_S: Final = 0.5
_SWEEP_S: Final = 60.0


class ContainerQueue:
    """Looks at the list of containers whenever something may have changed."""

    def __init__(
        self,
        engine: Engine,
        containers: Containers,
        availability: Availability,
        *,
        max_running: int,
        retention_s: float,
    ) -> None:
        self._engine = engine
        self._containers = containers
        self._availability = availability
        self._max_running = max_running
        self._retention = timedelta(seconds=retention_s)
        self._wake = asyncio.Event()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def changing(self, task_id: str) -> asyncio.Lock:
        """To be held by whoever creates, starts or cancels the container of this task."""
        return self._locks.setdefault(task_id, asyncio.Lock())

    def wake(self) -> None:
        """Look again, now."""
        self._wake.set()

    async def run(self) -> None:
        """Do so until cancelled; an engine that is away is tried again."""
        loop = asyncio.get_running_loop()
        swept_at = -_SWEEP_S
        while True:
            self._wake.clear()
            waiting = True
            with self._availability.tried():
                there = await self._containers.matching()
                waiting = await self._start_some(there)
                if loop.time() - swept_at >= _SWEEP_S:
                    await self._sweep(there)
                    swept_at = loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S if waiting else _SWEEP_S):
                    await self._wake.wait()

    async def _start_some(self, there: Sequence[Container]) -> bool:
        """Fill the free places; whether some still wait."""
        queued = [each for each in there if each.queued]
        free = self._max_running - sum(each.running for each in there)
        chosen = heapq.nsmallest(max(0, free), queued, key=lambda each: each.place)
        await asyncio.gather(*(self._start(each) for each in chosen))
        return len(chosen) < len(queued)

    async def _start(self, container: Container) -> None:
        client = self._engine.client
        async with self.changing(container.task_id):
            now = await self._containers.of_task(container.task_id)
            if now is None or not now.queued:
                return  # cancelled a moment ago
            try:
                await self._engine.call_once(client.start, container.id)
            except EngineError:
                name = container.task_id + UNSTARTABLE  # the engine keeps its reason
                await self._engine.call_if_there(client.rename, container.id, name)

    async def _sweep(self, there: Sequence[Container]) -> None:
        remove = self._engine.client.remove_container
        if not self._retention:
            return  # for ever
        ended = [each for each in there if each.ended]
        for each in ended:
            known = await self._containers.record(each)
            if known is None or known.finished_at is None:
                continue
            if datetime.now(UTC) - known.finished_at > self._retention:
                await self._engine.call_if_there(remove, each.id, v=True)
                self._containers.forget(each)
