"""How the running slots and the queue are shared between accounts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners.protocol import QueueFull

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.settings.serve import ServeSettings

_RETRY_AFTER_S: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The limits of running and queued tasks, over all accounts and of each; None: no own limit."""

    max_running: int
    queue_max: int
    account_max_running: int | None = None
    account_max_queued: int | None = None

    @classmethod
    def of(cls, settings: ServeSettings) -> Capacity:
        """The limits that the settings name."""
        return cls(
            max_running=settings.max_running,
            queue_max=settings.queue_max,
            account_max_running=settings.account_max_running,
            account_max_queued=settings.account_max_queued,
        )

    def check_queue(self, *, queued: int, of_account: int) -> None:
        """Check that one more task may be queued.

        Args:
            queued: how many tasks are queued.
            of_account: how many of them belong to the account.

        Raises:
            QueueFull: a limit is reached.
        """
        if self.account_max_queued is not None and of_account >= self.account_max_queued:
            raise QueueFull(_RETRY_AFTER_S, account_max=self.account_max_queued)
        if queued >= self.queue_max:
            raise QueueFull(_RETRY_AFTER_S)

    def account_full(self, running: int) -> bool:
        """Whether an account with this many running tasks has reached its limit."""
        return self.account_max_running is not None and running >= self.account_max_running


class Turns:
    """Chooses the account whose oldest task is started next.

    The account with the fewest running tasks is next; of several, the one whose latest start is the
    longest ago; of several that had none yet, the one whose task is the oldest.
    """

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._latest: dict[str, int] = {}
        self._numbers = itertools.count()

    def take(self, oldest: Mapping[str, Any], running: Mapping[str, int]) -> str | None:
        """The account that is next, and note its turn; None if no task may be started.

        Args:
            oldest: the position of the oldest queued task of each account that has one.
            running: the number of running tasks of accounts that have any.
        """
        allowed = [
            account
            for account in oldest
            if not self._capacity.account_full(running.get(account, 0))
        ]
        if not allowed:
            return None
        chosen = min(
            allowed,
            key=lambda account: (
                running.get(account, 0),
                self._latest.get(account, -1),
                oldest[account],
            ),
        )
        self._latest[chosen] = next(self._numbers)
        return chosen
