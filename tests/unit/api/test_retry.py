"""Repeated attempts: how many, after which delays, and what is raised in the end."""

from __future__ import annotations

import asyncio

import pytest

from worker.api import retry
from worker.api.retry import TemporaryFailure


class Attempts:
    """Raises the given errors one after the other, then returns `done`."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.count = 0

    async def __call__(self) -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    """The delays, without waiting for them."""
    delays: list[float] = []

    async def sleep(delay_s: float) -> None:
        delays.append(delay_s)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return delays


async def test_first_attempt_succeeds(slept):
    attempts = Attempts()
    assert await retry.call(attempts, delays_s=(1, 2)) == "done"
    assert (attempts.count, slept) == (1, [])


async def test_later_attempt_succeeds(slept):
    attempts = Attempts(TemporaryFailure("a"), TemporaryFailure("b"))
    assert await retry.call(attempts, delays_s=(1, 2, 3)) == "done"
    assert (attempts.count, slept) == (3, [1, 2])


async def test_last_error_is_raised(slept):
    """One attempt more than delays is made."""
    attempts = Attempts(*(TemporaryFailure(text) for text in "abcd"))
    with pytest.raises(TemporaryFailure, match="c"):
        await retry.call(attempts, delays_s=(1, 2))
    assert (attempts.count, slept) == (3, [1, 2])


async def test_other_errors_pass_through(slept):
    attempts = Attempts(KeyError("k"))
    with pytest.raises(KeyError):
        await retry.call(attempts, delays_s=(1, 2))
    assert (attempts.count, slept) == (1, [])


async def test_chosen_errors(slept):
    attempts = Attempts(KeyError("k"), OSError())
    assert await retry.call(attempts, delays_s=(1, 2), on=(KeyError, OSError)) == "done"


@pytest.mark.parametrize(("asked_s", "delay_s"), [(0.5, 1), (3, 3), (100, 5)])
async def test_retry_after(slept, asked_s, delay_s):
    """The requested delay is kept, up to a limit, if it is longer than ours."""
    attempts = Attempts(TemporaryFailure("a", retry_after_s=asked_s))
    await retry.call(attempts, delays_s=(1,), retry_after_max_s=5)
    assert slept == [delay_s]


async def test_jitter(slept):
    """Delays vary by the given share."""
    for _ in range(50):
        await retry.call(Attempts(TemporaryFailure("a")), delays_s=(10,), jitter=0.2)
    assert all(8 <= each <= 12 for each in slept)
    assert len(set(slept)) > 1
