"""Starts queued containers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from worker.api.runners.background import back_off_s
from worker.api.runners.docker.container import UNSTARTABLE, Container
from worker.api.runners.docker.engine import EngineError
from worker.api.runners.fairness import Turns
from worker.api.runners.protocol import RunnerUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.api.runners.availability import Availability
    from worker.api.runners.background import Loops
    from worker.api.runners.docker.engine import Engine
    from worker.api.runners.docker.task_containers import TaskContainers
    from worker.api.runners.fairness import Capacity

NAME: Final = "queue"
_POLL_S: Final = 0.5
_IDLE_S: Final = 60.0


class ContainerQueue:
    """Reads the list of containers when it is woken, and regularly while tasks are queued."""

    def __init__(
        self,
        engine: Engine,
        containers: TaskContainers,
        availability: Availability,
        loops: Loops,
        *,
        capacity: Capacity,
    ) -> None:
        self._engine = engine
        self._containers = containers
        self._availability = availability
        self._capacity = capacity
        self._turns = Turns(capacity)
        self._loops = loops
        self._woken = asyncio.Event()
        self._tasks_left = True
        self._delays: dict[str, tuple[int, float]] = {}
        """By container: how often it could not be started, and when it is tried again."""
        self._why_not_started: str | None = None
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock_of(self, task_id: str) -> asyncio.Lock:
        """The lock under which a task's container is created, started and cancelled."""
        return self._locks.setdefault(task_id, asyncio.Lock())

    def wake(self) -> None:
        """Have `run` read the list of containers now."""
        self._woken.set()

    async def iterate(self) -> None:
        """Start what may run."""
        self._woken.clear()
        self._tasks_left = True
        with self._availability.track():
            containers = await self._containers.matching()
            self._tasks_left = await self._start_queued(containers)
            if self._why_not_started is not None:
                raise RunnerUnavailable(self._why_not_started)

    async def pause(self) -> None:
        """Return when the list of containers is to be read again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S if self._tasks_left else _IDLE_S):
                await self._woken.wait()

    async def _start_queued(self, containers: Sequence[Container]) -> bool:
        """Start as many as may run; whether queued ones are left."""
        now = asyncio.get_running_loop().time()
        queued = [each for each in containers if each.queued]
        known = {each.id for each in queued}
        self._delays = {each: delay for each, delay in self._delays.items() if each in known}
        due = [
            each
            for each in queued
            if each.id not in self._delays or self._delays[each.id][1] <= now
        ]
        running = Counter(each.account for each in containers if each.running)
        free = self._capacity.max_running - running.total()
        chosen = next_to_start(due, running, free, self._turns)
        results = await asyncio.gather(
            *(self._start(each) for each in chosen), return_exceptions=True
        )
        for container, error in zip(chosen, results, strict=True):
            self._on_start(container, error, now)
        if not self._delays:
            self._why_not_started = None
        return len(chosen) < len(queued) or bool(self._delays)

    def _on_start(self, container: Container, error: BaseException | None, now: float) -> None:
        """A container that could not be started is tried again later, after the others."""
        if error is None:
            self._delays.pop(container.id, None)
            self._loops.handled(NAME, container.task_id)
            self._why_not_started = None
            return
        if isinstance(error, RunnerUnavailable):
            self._why_not_started = str(error)
        elif isinstance(error, Exception):
            self._loops.skipped(NAME, container.task_id, error)
        else:
            raise error
        failures = self._delays.get(container.id, (0, 0.0))[0] + 1
        self._delays[container.id] = (failures, now + back_off_s(failures))

    async def _start(self, container: Container) -> None:
        client = self._engine.client
        async with self.lock_of(container.task_id):
            current = await self._containers.of_task(container.task_id)
            if current is None or not current.queued:
                return  # it was cancelled since the list was read
            try:
                await self._engine.call_once(client.start, container.id)
            except EngineError as error:
                if error.is_machine_fault:
                    raise RunnerUnavailable(
                        f"the Docker engine cannot start containers now: {error}"
                    ) from error
                name = container.task_id + UNSTARTABLE  # the engine keeps the reason
                await self._engine.call_if_present(client.rename, container.id, name)


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
