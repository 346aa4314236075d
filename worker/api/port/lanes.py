"""Serves each client a few requests at a time, so that none delays the others."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

RUNNING_MAX: Final = 4
WAITING_MAX: Final = 128


@dataclass(slots=True)
class _Lane:
    """The requests of one client."""

    running: int = 0
    waiting: deque[Waiting] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits.

    Attributes:
        start: begins to serve it; returns whether that is still wanted.
        refuse: refuses it.
    """

    start: Callable[[], bool]
    refuse: Callable[[], None]


class Lanes:
    """The requests that are served, and those that wait, by client.

    All clients are served at the same time, each with at most `RUNNING_MAX` requests.
    """

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane] = {}

    def enter(self, client: Hashable, request: Waiting) -> None:
        """Start a request, now or when an earlier one of its client has ended, or refuse it."""
        lane = self._lanes.get(client)
        if lane is None:
            lane = self._lanes[client] = _Lane()
        if lane.running < RUNNING_MAX:
            lane.running += 1
            if not request.start():
                self.leave(client)
        elif len(lane.waiting) < WAITING_MAX:
            lane.waiting.append(request)
        else:
            request.refuse()

    def leave(self, client: Hashable) -> None:
        """A request that was started has ended, or needs no more of the processor."""
        lane = self._lanes[client]
        while lane.waiting:
            if lane.waiting.popleft().start():
                return
        lane.running -= 1
        if not lane.running:
            del self._lanes[client]

    def shed(self) -> bool:
        """Refuse the latest waiting request of the client with the most; False if none waits."""
        longest = max(self._lanes.values(), key=lambda lane: len(lane.waiting), default=None)
        if longest is None or not longest.waiting:
            return False
        longest.waiting.pop().refuse()
        return True
