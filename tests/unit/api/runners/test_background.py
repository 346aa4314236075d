"""A runner's asyncio tasks."""

from __future__ import annotations

import asyncio

from worker.api.runners.background import BackgroundTasks


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
