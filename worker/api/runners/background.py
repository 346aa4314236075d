"""The loops of the API, and the asyncio tasks that a runner starts and cancels when it closes.

A loop repeats one iteration. A failure of the work on one task is reported and does not stop the
loop (`Loops.handling`). If an iteration itself fails, the loop is down: `loop.failed` is emitted,
`/readyz` answers 503, and the iteration is repeated with back-off. After one that succeeds,
`loop.recovered` is emitted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners.machine_faults import describe
from worker.api.runners.protocol import RunnerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping

    Report = Callable[..., None]

BACK_OFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Before each further attempt; the last one is repeated."""
_SKIPPED_MAX: Final = 10_000


def back_off_s(failures: int) -> float:
    """The delay after so many failures in a row, at least one."""
    return BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1]


class Loops:
    """The state of all loops of an API process, reported by events and by `/readyz`."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._down: dict[str, str] = {}
        self._skipped: OrderedDict[tuple[str, str], None] = OrderedDict()

    @property
    def down(self) -> Mapping[str, str]:
        """The loops that are down, each with the reason."""
        return self._down

    def failed(self, loop: str, error: BaseException) -> None:
        """Record that an iteration failed; the first failure in a row is reported."""
        is_first = loop not in self._down
        self._down[loop] = describe(error)
        if is_first:
            self.report("loop.failed", loop=loop, why=self._down[loop])

    def passed(self, loop: str) -> None:
        """Record that an iteration succeeded, or that the loop is not to run any more."""
        if self._down.pop(loop, None) is not None:
            self.report("loop.recovered", loop=loop)

    @contextlib.contextmanager
    def handling(self, loop: str, task_id: str) -> Iterator[None]:
        """Around a loop's work on one task: an error is reported, not raised.

        Raises:
            RunnerUnavailable: it concerns all tasks.
        """
        try:
            yield
        except RunnerUnavailable:
            raise
        except Exception as error:  # any: the other tasks are not affected
            self.skipped(loop, task_id, error)
        else:
            self.handled(loop, task_id)

    def skipped(self, loop: str, task_id: str, error: BaseException) -> None:
        """Report a failure that concerns one task, once until `handled`."""
        key = (loop, task_id)
        if key in self._skipped:
            return
        self._skipped[key] = None
        while len(self._skipped) > _SKIPPED_MAX:
            self._skipped.popitem(last=False)
        self.report("loop.skipped", loop=loop, task_id=task_id, why=describe(error))

    def handled(self, loop: str, task_id: str) -> None:
        """Record that the work on a task succeeded."""
        self._skipped.pop((loop, task_id), None)


class BackgroundTasks:
    """Keeps references to running tasks; a failure goes to the loop's exception handler."""

    def __init__(
        self,
        loops: Loops | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._loops = loops or Loops(lambda *_, **__: None)
        self._sleep = sleep
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine concurrently."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def repeat(
        self,
        name: str,
        iterate: Callable[[], Awaitable[None]],
        pause: Callable[[], Awaitable[object]],
    ) -> asyncio.Task[None]:
        """Run a loop until `cancel`.

        Args:
            name: the loop's name in events and in the answer of `/readyz`.
            iterate: one iteration. RunnerUnavailable, which the runner reports, delays the next one
                and does not count as a failure of the loop.
            pause: returns when the next iteration is to begin.
        """
        return self.start(self._repeat(name, iterate, pause))

    async def cancel(self) -> None:
        """Cancel all tasks and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(
        self,
        name: str,
        iterate: Callable[[], Awaitable[None]],
        pause: Callable[[], Awaitable[object]],
    ) -> None:
        failures = 0
        while True:
            try:
                await iterate()
                self._loops.passed(name)
                failures = 0
                await pause()
            except RunnerUnavailable:
                failures += 1
                await self._sleep(back_off_s(failures))
            except (Exception, asyncio.CancelledError) as error:
                if _is_being_cancelled(error):
                    raise
                self._loops.failed(name, error)
                failures += 1
                await self._sleep(back_off_s(failures))

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a background task of the runner failed", "exception": error}
            )


class Rounds:
    """The rounds of a loop that works on each account's tasks: one at a time for an account.

    An account whose round takes long is left out until that ends, and delays no other account.
    """

    def __init__(self, background: BackgroundTasks) -> None:
        self._background = background
        self._accounts: set[str] = set()
        self.running: set[asyncio.Task[None]] = set()

    def begin(self, account: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin an account's round, unless one is running.

        Args:
            account: whose.
            work: the round. RunnerUnavailable ends it: the loop's next iteration reports that.
        """
        if account in self._accounts:
            return
        self._accounts.add(account)
        running = self._background.start(self._run(account, work))
        self.running.add(running)
        running.add_done_callback(self.running.discard)

    async def wait(self, limit_s: float) -> None:
        """Return when all rounds have ended, or after this time."""
        if self.running:
            await asyncio.wait(self.running, timeout=limit_s)

    async def _run(self, account: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            with contextlib.suppress(RunnerUnavailable):
                await work()
        finally:
            self._accounts.discard(account)


def _is_being_cancelled(error: BaseException) -> bool:
    """False for a CancelledError that leaked from something awaited, for example a library."""
    current = asyncio.current_task()
    return (
        isinstance(error, asyncio.CancelledError)
        and current is not None
        and current.cancelling() > 0
    )
