"""A runner's asyncio tasks, and the loops of the API."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from worker.api.runners.background import BACK_OFF_S, BackgroundTasks, Loops, Rounds
from worker.api.runners.protocol import RunnerUnavailable


class Script:
    """A loop whose iterations raise what is given, one after the other; then it stays paused."""

    def __init__(self, *results: BaseException | None) -> None:
        self.results = list(results)
        self.reported: list[tuple[str, dict[str, object]]] = []
        self.down: list[dict[str, str]] = []
        self.slept: list[float] = []
        self.loops = Loops(lambda event, **fields: self.reported.append((event, fields)))
        self.all_done = asyncio.Event()
        self.background = BackgroundTasks(self.loops, self._sleep)

    async def _sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)

    async def _iterate(self) -> None:
        self.down.append(dict(self.loops.down))
        if (result := self.results.pop(0)) is not None:
            raise result

    async def _pause(self) -> None:
        if not self.results:
            self.all_done.set()
            await asyncio.Event().wait()

    async def run(self) -> None:
        self.background.repeat("sweep", self._iterate, self._pause)
        async with asyncio.timeout(10):
            await self.all_done.wait()
        await self.background.cancel()


async def test_cancel_waits_for_the_end():
    ended = []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    background = BackgroundTasks()
    for _ in range(2):
        background.start(work())
    await asyncio.sleep(0)
    await background.cancel()
    assert ended == [True, True]


async def test_failure_is_reported():
    """A failed task's exception goes to the loop's handler."""
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def fail():
        raise ZeroDivisionError

    task = BackgroundTasks().start(fail())
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [type(each["exception"]) for each in reported] == [ZeroDivisionError]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (MemoryError(), "MemoryError"),
        (RecursionError("a\nb"), "RecursionError: a b"),
        (asyncio.CancelledError(), "CancelledError"),
        (ValueError("x" * 5000), "ValueError: " + "x" * 488),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_failed_loop_is_repeated(error, why):
    """It is down from its first failure until an iteration succeeds; both are reported once."""
    script = Script(None, error, error, None, None)
    await script.run()
    assert script.reported == [
        ("loop.failed", {"loop": "sweep", "why": why}),
        ("loop.recovered", {"loop": "sweep"}),
    ]
    assert script.down == [{}, {}, {"sweep": why}, {"sweep": why}, {}]
    assert script.slept == list(BACK_OFF_S[:2])


async def test_delays_increase_to_a_limit():
    script = Script(*[OSError()] * 8, None)
    await script.run()
    assert script.slept == [*BACK_OFF_S, BACK_OFF_S[-1], BACK_OFF_S[-1]]


async def test_unavailable_runner_is_no_failure_of_a_loop():
    """The runner reports it; the iteration is repeated."""
    script = Script(RunnerUnavailable("away"), None)
    await script.run()
    assert script.reported == []
    assert script.slept == [BACK_OFF_S[0]]


def test_failure_of_one_task():
    """It is reported once until the task was handled, and does not concern other tasks."""
    reported = []
    loops = Loops(lambda event, **fields: reported.append((event, fields)))
    for task_id, error in (
        *(("a", KeyError("x")), ("a", KeyError("y")), ("b", None)),
        *(("a", None), ("a", ValueError("z"))),
    ):
        with loops.handling("sweep", task_id):
            if error is not None:
                raise error
    assert reported == [
        ("loop.skipped", {"loop": "sweep", "task_id": "a", "why": "KeyError: 'x'"}),
        ("loop.skipped", {"loop": "sweep", "task_id": "a", "why": "ValueError: z"}),
    ]
    assert loops.down == {}


def test_unavailable_runner_concerns_all_tasks():
    with pytest.raises(RunnerUnavailable), Loops(lambda *_, **__: None).handling("sweep", "a"):
        raise RunnerUnavailable("away")


async def test_slow_round_of_one_account():
    """It is left out of the next iterations, in which the other accounts have their rounds."""
    gate, begun = asyncio.Event(), []
    background = BackgroundTasks()
    rounds = Rounds(background)

    async def work(account):
        begun.append(account)
        if account == "slow":
            await gate.wait()
        raise RunnerUnavailable("reported by the loop")

    for _ in range(2):
        for account in ("slow", "other"):
            rounds.begin(account, partial(work, account))
        await rounds.wait(0.01)
    assert begun == ["slow", "other", "other"]
    gate.set()
    await rounds.wait(20)
    rounds.begin("slow", partial(work, "slow"))
    await rounds.wait(20)
    assert begun.count("slow") == 2
    await background.cancel()
