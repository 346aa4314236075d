"""Callbacks: an ended task's JSON, signed, in a POST to the URL that its client gave.

A callback is delivered at least once. Its headers:

    x-worker-timestamp: <seconds since 1970>
    x-worker-signature: sha256=<hex of HMAC-SHA256(secret, timestamp + "." + body)>

The secret is the text that `worker api-key ACCOUNT --callback-secret` prints.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.api.callbacks.attempt import TIMEOUT_S, CallbackRejected, Post, signed_headers
from worker.api.callbacks.schedule import Schedule
from worker.api.runners.background import BackgroundTasks, Loops, back_off_s
from worker.api.runners.machine_faults import describe
from worker.api.runners.protocol import CALLBACK_LEASE_S, NULL, RunnerUnavailable
from worker.api.runners.threads import SharedThreads

if TYPE_CHECKING:
    from worker.api.runners.protocol import Runner, TaskRecord

__all__ = ["DELAYS_S", "POLL_S", "Sender", "signed_headers"]

POLL_S: Final = 1.0
DELAYS_S: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Between attempts; the sum with the attempts' timeouts is less than CALLBACK_LEASE_S."""
SLOTS: Final = 32
SLOTS_PER_ACCOUNT: Final = 4
_LOOKUPS: Final = 16
_LOOKUPS_PER_ACCOUNT: Final = 2
_JITTER: Final = 0.2
_WHY_MAX_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Delivers the runner's pending callbacks until it is cancelled."""

    runner: Runner
    secret_of: Callable[[str], str]
    report: Callable[..., None]
    private: bool = False
    poll_s: float = POLL_S
    delays_s: tuple[float, ...] = DELAYS_S
    loops: Loops | None = None

    async def run(self) -> None:
        """Lease pending callbacks regularly, and attempt those that are due, several at a time."""
        background = BackgroundTasks(self.loops or Loops(self.report))
        lookups = SharedThreads(_LOOKUPS, _LOOKUPS_PER_ACCOUNT, "lookup")
        post = Post(secret_of=self.secret_of, private=self.private, lookups=lookups)
        deliveries = _Deliveries(self, post, background)
        try:
            await asyncio.wait(
                [
                    background.repeat(
                        "callback leases", deliveries.lease, lambda: asyncio.sleep(self.poll_s)
                    ),
                    background.repeat(
                        "callback attempts", deliveries.attempt_due, deliveries.until_due
                    ),
                ]
            )
        finally:
            await background.cancel()
            lookups.close()


@dataclass(slots=True, kw_only=True)
class _Delivery:
    """A leased callback."""

    task: TaskRecord
    """As it was leased, without inputs and output: many callbacks may wait."""
    leased_until: float
    attempts: int = 0


class _Deliveries:
    """The leased callbacks."""

    def __init__(self, sender: Sender, post: Post, background: BackgroundTasks) -> None:
        self._sender = sender
        self._runner = sender.runner
        self._post = post
        self._background = background
        self._schedule: Schedule[_Delivery] = Schedule(slots=SLOTS, per_account=SLOTS_PER_ACCOUNT)
        self._changed = asyncio.Event()
        self._clock = time.monotonic

    async def lease(self) -> None:
        """Lease further callbacks."""
        until = self._clock() + CALLBACK_LEASE_S
        for task in await self._runner.lease_callbacks():
            small = dataclasses.replace(task, inputs={}, output=NULL, error=None)
            self._wait(_Delivery(task=small, leased_until=until), 0)

    async def attempt_due(self) -> None:
        """Begin the attempts that are due, as far as there are slots."""
        while (delivery := self._schedule.take(self._clock())) is not None:
            self._background.start(self._attempt(delivery))

    async def until_due(self) -> None:
        """Return when an attempt is due or a slot was freed."""
        at = self._schedule.next_at()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if at is None else max(0.0, at - self._clock())):
                await self._changed.wait()
        self._changed.clear()

    def _wait(self, delivery: _Delivery, delay_s: float) -> None:
        """Schedule the next attempt, unless the lease ends before it."""
        at = self._clock() + delay_s
        if at + TIMEOUT_S < delivery.leased_until:
            self._schedule.add(delivery.task.account, delivery, at)
            self._changed.set()

    async def _attempt(self, delivery: _Delivery) -> None:
        try:
            if self._clock() + TIMEOUT_S < delivery.leased_until:
                await self._attempt_in_time(delivery)
            # Otherwise the runner leases it again: another replica may have done so by now.
        finally:
            self._schedule.release(delivery.task.account)
            self._changed.set()

    async def _attempt_in_time(self, delivery: _Delivery) -> None:
        delays_s, why = self._sender.delays_s, None
        try:
            task = await self._runner.find(delivery.task.account, delivery.task.task_id)
        except RunnerUnavailable:
            self._wait(delivery, POLL_S)
            return
        try:
            delivery.attempts += 1
            await self._post.send(task)
        except CallbackRejected as error:
            why = _text(error)
        except Exception as error:  # any: it concerns this callback only
            if delivery.attempts <= len(delays_s):
                share = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
                self._wait(delivery, delays_s[delivery.attempts - 1] * share)
                return
            why = _text(error)
        self._background.start(self._settle(delivery, why))

    async def _settle(self, delivery: _Delivery, why: str | None) -> None:
        """Record the result with the runner, if necessary several times, within the lease."""
        task_id, failures = delivery.task.task_id, 0
        while (error := await self._finish(delivery)) is not None:
            failures += 1
            if failures == 1:
                self._sender.report("callback.unsettled", task_id=task_id, why=error)
                self._report(delivery, why)
            if self._clock() + back_off_s(failures) > delivery.leased_until:
                return
            await asyncio.sleep(back_off_s(failures))
        if not failures:
            self._report(delivery, why)

    async def _finish(self, delivery: _Delivery) -> str | None:
        """Why the result could not be recorded; None if it was."""
        try:
            await self._runner.finish_callback(delivery.task)
        except Exception as error:  # any: it concerns this callback only
            return str(error) if isinstance(error, RunnerUnavailable) else describe(error)
        return None

    def _report(self, delivery: _Delivery, why: str | None) -> None:
        fields = {"task_id": delivery.task.task_id, "tries": delivery.attempts}
        if why is None:
            self._sender.report("callback.delivered", **fields)
        else:
            self._sender.report("callback.failed", **fields, why=why)


def _text(error: Exception) -> str:
    return str(error)[:_WHY_MAX_CHARS] or type(error).__name__
