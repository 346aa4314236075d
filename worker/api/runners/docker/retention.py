"""Removes ended containers, with their volumes, after the retention time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.api.runners.background import Loops, Rounds
    from worker.api.runners.docker.container import Container
    from worker.api.runners.docker.engine import Engine
    from worker.api.runners.docker.task_containers import TaskContainers

NAME: Final = "retention"
_PERIOD_S: Final = 60.0


class ContainerRetention:
    """Removes the containers of each account one after the other."""

    def __init__(
        self,
        engine: Engine,
        containers: TaskContainers,
        loops: Loops,
        rounds: Rounds,
        *,
        kept_s: float,
    ) -> None:
        self._engine = engine
        self._containers = containers
        self._loops = loops
        self._rounds = rounds
        self._kept = timedelta(seconds=kept_s)

    async def iterate(self) -> None:
        """Begin to remove what has expired.

        Raises:
            RunnerUnavailable: the engine does not answer; the queue reports it.
        """
        ended: defaultdict[str, list[Container]] = defaultdict(list)
        for each in await self._containers.matching():
            if each.ended:
                ended[each.account].append(each)
        for account, own in ended.items():
            self._rounds.begin(account, partial(self._sweep, own))

    async def pause(self) -> None:
        """Return when the next iteration is to begin."""
        await asyncio.sleep(_PERIOD_S)

    async def _sweep(self, containers: Sequence[Container]) -> None:
        for each in containers:
            with self._loops.handling(NAME, each.task_id):
                await self._remove_expired(each)

    async def _remove_expired(self, container: Container) -> None:
        task = await self._containers.without_result(container)
        if task is None or task.finished_at is None:
            return
        if datetime.now(UTC) - task.finished_at > self._kept:
            remove = self._engine.client.remove_container
            calls = self._engine.removing(container.account)
            await calls.call_if_present(remove, container.id, v=True)
            self._containers.forget(container)
