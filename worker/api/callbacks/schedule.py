"""Which callback is attempted next: accounts take turns, each with a limited number of slots.

A slot is in use during an attempt only. Between its attempts a callback waits without one.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Account(Generic[T]):
    waiting: list[tuple[float, int, T]] = field(default_factory=list)
    """A heap by the time when each is due; the second value keeps the order of equal times."""
    in_use: int = 0


class Schedule(Generic[T]):
    """Callbacks that wait for their next attempt; times are those of the caller's clock."""

    def __init__(self, *, slots: int, per_account: int) -> None:
        """Make an empty schedule.

        Args:
            slots: the maximum number of attempts at a time.
            per_account: the same, of one account.
        """
        self._slots = slots
        self._per_account = per_account
        self._in_use = 0
        self._accounts: OrderedDict[str, _Account[T]] = OrderedDict()
        self._numbers = itertools.count()

    def add(self, account: str, callback: T, due_at: float) -> None:
        """Let a callback wait for an attempt, until the given time at least."""
        waiting = self._accounts.setdefault(account, _Account()).waiting
        heapq.heappush(waiting, (due_at, next(self._numbers), callback))

    def take(self, now: float) -> T | None:
        """The next callback that is due, with a slot in use; the next account is first then."""
        if self._in_use >= self._slots:
            return None
        for name, account in self._accounts.items():
            if self._is_open(account) and account.waiting[0][0] <= now:
                account.in_use += 1
                self._in_use += 1
                self._accounts.move_to_end(name)
                return heapq.heappop(account.waiting)[2]
        return None

    def release(self, name: str) -> None:
        """Free the slot of an account's attempt."""
        account = self._accounts[name]
        account.in_use -= 1
        self._in_use -= 1
        if not account.in_use and not account.waiting:
            del self._accounts[name]

    def next_at(self) -> float | None:
        """When `take` is to be called next; None before `add` or `release`."""
        if self._in_use >= self._slots:
            return None
        times = [each.waiting[0][0] for each in self._accounts.values() if self._is_open(each)]
        return min(times, default=None)

    def _is_open(self, account: _Account[T]) -> bool:
        return bool(account.waiting) and account.in_use < self._per_account
