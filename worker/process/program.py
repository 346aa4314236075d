"""A program of the display stack: its command, and what happens when it starts and ends.

It is started again at once after the first end, then after a delay that doubles with each further
end, up to a maximum. A program that was ready for long enough is healthy: its next end counts as
the first one again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

DELAY_FIRST_S: Final = 0.1  # after the second end in a row
DELAY_MAX_S: Final = 5.0  # also the least time between two restarts of a program that always ends
HEALTHY_S: Final = 10.0
_DOUBLINGS_MAX: Final = 16  # more would only make the number larger than the maximum


def _no_action(_pid: int) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that supervisord runs.

    Attributes:
        name: unique; events and metrics use it.
        command: the program and its arguments.
        restart: whether it is started again when it ends.
        stdout: a file or FIFO of the session's folder, for its stdout; default: none.
        stop_signal: sent to stop it, for example `TERM`.
        ready: returns when it accepts work; raises StartFailed when it does not in time.
        on_start: called with its process id each time that supervisord has started it.
        on_up: called with its process id each time that it is ready.
        on_down: called with its process id each time that it has ended, ready or not.
    """

    name: str
    command: Sequence[str]
    restart: bool
    stdout: str | None = None
    stop_signal: str = "TERM"
    ready: Callable[[], Awaitable[object]] | None = None
    on_start: Callable[[int], None] = _no_action
    on_up: Callable[[int], None] = _no_action
    on_down: Callable[[int], None] = _no_action


@dataclass(slots=True)
class Backoff:
    """When a program is started again. Pure: `now` is by a monotonic clock, in seconds.

    Attributes:
        in_a_row: how often it has ended since it was last healthy.
    """

    in_a_row: int = 0
    _ready_at: float | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the program has become ready since its last end."""
        return self._ready_at is not None

    def ready(self, now: float) -> None:
        """The program has become ready."""
        self._ready_at = now

    def ended(self, now: float) -> float:
        """The program has ended, or could not be started: how long to wait before a start."""
        if self._ready_at is not None and now - self._ready_at >= HEALTHY_S:
            self.in_a_row = 0
        self._ready_at = None
        self.in_a_row += 1
        if self.in_a_row == 1:
            return 0.0
        doublings = min(self.in_a_row - 2, _DOUBLINGS_MAX)
        return min(DELAY_MAX_S, DELAY_FIRST_S * (1 << doublings))
