"""Repeats a call whose failure may be temporary, with a delay before each further attempt."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")


class TemporaryFailure(Exception):
    """An attempt failed and a later one may succeed.

    `retry_after_s` is the delay that the other side asked for (HTTP's Retry-After); 0 without one.
    """

    def __init__(self, why: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


async def call(
    attempt: Callable[[], Awaitable[T]],
    *,
    delays_s: Sequence[float],
    on: type[Exception] | tuple[type[Exception], ...] = TemporaryFailure,
    jitter: float = 0.0,
    retry_after_max_s: float = 0.0,
) -> T:
    """Return the result of the first attempt that succeeds.

    Args:
        attempt: makes one attempt.
        delays_s: the delay before each further attempt; one attempt more than delays is made.
        on: the exceptions after which another attempt is made; any other passes through at once.
        jitter: the share of a delay by which it varies at random (0.2: from 80 % to 120 %).
        retry_after_max_s: the longest delay that a TemporaryFailure's `retry_after_s` can cause.

    Raises:
        Exception: what the last attempt raised.
    """
    for delay_s in delays_s:
        try:
            return await attempt()
        except on as error:
            asked_s = error.retry_after_s if isinstance(error, TemporaryFailure) else 0.0
            varied_s = delay_s * random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 - no secret
            await asyncio.sleep(max(varied_s, min(asked_s, retry_after_max_s)))
    return await attempt()
