"""Ends every process below this one, also those that fork faster than they can be listed.

    SIGTERM       to each; they have `grace_s`
    cgroup.kill   if the task has a cgroup of its own (see `task_cgroup`): none of it can escape
    SIGSTOP       to each, until no running one is found: a stopped process cannot fork, and does
                  not notice that another one is killed
    SIGKILL       to each, until none is left

A process that forks and ends at once lives too briefly to be found by a list of all processes. But
it is a child of this subreaper, and one of the newest process ids: those are checked in between.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from worker import linux
from worker.process import descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

_POLL_S: Final = 0.02
_PAUSE_S: Final = 0.005
_BURST_S: Final = 0.03
_FREEZE_LIMIT_S: Final = 1.0
_QUIET_S: Final = 0.02
_NEWEST: Final = 64
_NEWEST_ROUNDS: Final = 8  # take as long as one list of a hundred processes
_QUIET_ROUNDS: Final = 2


@dataclass(slots=True, kw_only=True)
class Sweep:
    """One sweep.

    Attributes:
        reap: reaps the children that have ended; True if no child is left.
        orphan_ended_at: when an orphan was reaped last, by time.monotonic().
        spare: processes that stay, with all that is below them.
        kill_group: kills the task's cgroup, if there is one.
    """

    reap: Callable[[], bool]
    orphan_ended_at: Callable[[], float]
    spare: Collection[int]
    kill_group: Callable[[], None]
    _asked: dict[int, int] = field(default_factory=dict)
    _refused: set[int] = field(default_factory=set)
    _proc_is_partial: bool = field(default_factory=linux.proc_is_partial)

    async def run(self, *, grace_s: float, limit_s: float) -> None:
        """End the processes; returns when none is left, or at a limit.

        Args:
            grace_s: from SIGTERM to SIGKILL.
            limit_s: the longest time for all of it; a process in uninterruptible sleep cannot die.
        """
        clock = asyncio.get_running_loop().time  # stands still while this process does not run
        began = clock()
        while clock() - began < min(grace_s, limit_s):
            self._ask(self.left(), signal.SIGTERM)
            if self._is_over():
                return
            await asyncio.sleep(_POLL_S)
        self.kill_group()
        for number, end_s in (
            (signal.SIGSTOP, grace_s + _FREEZE_LIMIT_S),
            (signal.SIGKILL, limit_s),
        ):
            is_running = self._burst(number)  # at least once, however late it is
            while is_running and clock() - began < min(end_s, limit_s):
                if self._is_over():
                    return
                await asyncio.sleep(_PAUSE_S)
                is_running = self._burst(number)

    def left(self) -> list[int]:
        """The processes that are left now."""
        return [] if self.reap() else self._find()

    def _is_over(self) -> bool:
        """Whether none is left, or none that this process may signal."""
        if self.reap():
            return True
        if not self.spare and not self._refused:
            return False
        # One that forks and ends at once is not found, but leaves ended orphans all the time.
        is_quiet = time.monotonic() - self.orphan_ended_at() > _QUIET_S
        return is_quiet and self._refused.issuperset(self._find())

    def _burst(self, number: int) -> bool:
        """Signal without a pause; False when no running one was found that had not got it."""
        until = time.monotonic() + _BURST_S
        quiet = 0
        while time.monotonic() < until:
            is_new = self._ask(self.left(), number)
            for _ in range(_NEWEST_ROUNDS):
                is_new = self._ask(self._newest(), number) or is_new
            quiet = 0 if is_new else quiet + 1
            if quiet == _QUIET_ROUNDS:
                return number == signal.SIGKILL
        return True

    def _ask(self, pids: Iterable[int], number: int) -> bool:
        """Send each process a signal, SIGTERM once; whether one had not been sent it before.

        The others are sent again: a process id may be another process's by now.
        """
        is_new = False
        for pid in pids:
            is_repeated = self._asked.get(pid) == number
            if is_repeated and number == signal.SIGTERM:
                continue
            self._asked[pid] = number
            is_new = is_new or not is_repeated
            if not descendants.send(pid, number):
                self._refused.add(pid)
        return is_new

    def _newest(self) -> list[int]:
        newest = linux.newest_pid()
        recent = range(max(1, newest - _NEWEST), newest + 1)
        return [pid for pid in descendants.children_among(recent) if pid not in self.spare]

    def _find(self) -> list[int]:
        found = descendants.tree(self.spare)
        if self._proc_is_partial:
            known = {*found, *self.spare}
            hidden = descendants.children_among(descendants.possible_pids())
            found += [pid for pid in hidden if pid not in known]
        return found
