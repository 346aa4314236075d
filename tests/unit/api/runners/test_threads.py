"""Threads for blocking calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from worker.api.runners.threads import SharedSlots, SharedThreads, Threads

PATIENCE_S = 20


@contextlib.contextmanager
def opened(threads: Any) -> Iterator[Any]:
    try:
        yield threads
    finally:
        threads.close()


async def test_calls():
    """The result or the exception of a call is the caller's."""
    with opened(Threads(2, "test")) as threads:
        assert await threads.call(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await threads.call(divmod, 7, 0)
        assert await threads.call(sorted, [2, 1], reverse=True) == [2, 1]


async def test_one_thread_keeps_the_order():
    done: list[int] = []
    threads = Threads(1, "test")
    calls = [threads.submit(done.append, number) for number in range(100)]
    threads.join()
    assert all(call.done() for call in calls)
    assert done == list(range(100))


async def test_slow_calls_of_one_account_do_not_block_another():
    """An account whose calls hang occupies its share; a cancelled call does, until it ends."""
    gate = threading.Event()
    with opened(SharedThreads(3, 2, "test")) as threads:
        hanging = [asyncio.ensure_future(threads.call("a", gate.wait)) for _ in range(10)]
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(20):
                assert await threads.call("b", int, "7") == 7
            for each in hanging:
                each.cancel()
            await asyncio.wait(hanging)
            assert await threads.call("b", int, "7") == 7
            waiting = asyncio.ensure_future(threads.call("a", int, "8"))
            await threads.call("b", int, "7")
            assert not waiting.done()
            gate.set()
            assert await waiting == 8


def test_slots_that_one_account_waits_for():
    """An account uses its share, and no slot while it waits."""
    slots, gate, entered = SharedSlots(2, 1), threading.Event(), threading.Barrier(2)
    done: list[str] = []

    def work(account: str) -> None:
        with slots.of(account):
            if account == "a" and not gate.is_set():
                entered.wait(PATIENCE_S)
                gate.wait(PATIENCE_S)
            done.append(account)

    hanging = [threading.Thread(target=work, args="a") for _ in range(5)]
    for each in hanging:
        each.start()
    entered.wait(PATIENCE_S)
    other = threading.Thread(target=work, args="b")
    other.start()
    other.join(PATIENCE_S)
    assert done == ["b"]
    gate.set()
    for each in hanging:
        each.join(PATIENCE_S)
    assert done == ["b", *["a"] * 5]
