"""Callbacks: an ended task's JSON, signed, in a POST to the URL that its client gave.

A callback is delivered at least once. Its headers:

    x-worker-timestamp: <seconds since 1970>
    x-worker-signature: sha256=<hex of HMAC-SHA256(secret, timestamp + "." + body)>

The secret is the text that `worker api-key ACCOUNT --callback-secret` prints.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import httpcore

from worker.api import retry
from worker.api.callbacks.addresses import AddressNotPublic, PublicBackend
from worker.api.models import Task
from worker.api.runners.protocol import RunnerUnavailable

if TYPE_CHECKING:
    from worker.api.runners.protocol import Runner, TaskRecord

POLL_S: Final = 1.0
DELAYS_S: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Between attempts; the sum with the attempts' timeouts is less than CALLBACK_LEASE_S."""
_ATTEMPT_TIMEOUT_S: Final = 10.0
_CONCURRENT_MAX: Final = 20
_JITTER: Final = 0.2


class CallbackRejected(Exception):
    """This callback can never be delivered: no further attempt is made."""


class _NotAccepted(Exception):
    """The receiver did not accept this attempt."""


_RETRIED: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    TimeoutError,
    _NotAccepted,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Delivers the runner's pending callbacks until it is cancelled."""

    runner: Runner
    secret_of: Callable[[str], str]
    report: Callable[..., None]
    private: bool = False
    poll_s: float = POLL_S
    delays_s: tuple[float, ...] = DELAYS_S

    async def run(self) -> None:
        """Lease pending callbacks regularly and deliver them, several at a time."""
        slots = asyncio.Semaphore(_CONCURRENT_MAX)
        pool = httpcore.AsyncConnectionPool(
            network_backend=None if self.private else PublicBackend(), max_keepalive_connections=0
        )
        async with pool, asyncio.TaskGroup() as deliveries:
            while True:
                try:
                    leased = await self.runner.lease_callbacks()
                except RunnerUnavailable:
                    leased = ()  # the runner reports it; the next poll may succeed
                for task in leased:
                    await slots.acquire()
                    delivery = deliveries.create_task(self._handle(pool, task))
                    delivery.add_done_callback(lambda _: slots.release())
                await asyncio.sleep(self.poll_s)

    async def _handle(self, pool: httpcore.AsyncConnectionPool, task: TaskRecord) -> None:
        attempts, why = await self._deliver(pool, task)
        try:
            await self.runner.finish_callback(task)
        except RunnerUnavailable as error:
            self.report("callback.unsettled", task_id=task.task_id, why=str(error))
        if why is None:
            self.report("callback.delivered", task_id=task.task_id, tries=attempts)
        else:
            self.report("callback.failed", task_id=task.task_id, tries=attempts, why=why)

    async def _deliver(
        self, pool: httpcore.AsyncConnectionPool, task: TaskRecord
    ) -> tuple[int, str | None]:
        """The number of attempts, and why the last one failed; None if it succeeded."""
        body = Task.of(task).model_dump_json().encode()
        attempts = 0

        async def attempt() -> None:
            nonlocal attempts
            attempts += 1
            await self._post(pool, task, body)

        try:
            await retry.call(attempt, delays_s=self.delays_s, on=_RETRIED, jitter=_JITTER)
        except (CallbackRejected, *_RETRIED) as error:
            return attempts, str(error) or type(error).__name__
        return attempts, None

    async def _post(
        self, pool: httpcore.AsyncConnectionPool, task: TaskRecord, body: bytes
    ) -> None:
        headers = signed_headers(self.secret_of(task.account), body, int(time.time()))
        try:
            async with asyncio.timeout(_ATTEMPT_TIMEOUT_S):
                async with pool.stream(
                    "POST", task.callback_url or "", headers=headers, content=body
                ) as answer:
                    status = answer.status
        except (AddressNotPublic, httpcore.UnsupportedProtocol, UnicodeError, ValueError) as error:
            raise CallbackRejected(str(error)) from error
        if status == HTTPStatus.GONE:
            raise CallbackRejected("HTTP 410")
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise _NotAccepted(f"HTTP {status}")  # redirects too: they could lead to any address


def signed_headers(secret: str, body: bytes, timestamp_s: int) -> dict[bytes | str, bytes | str]:
    """A callback's headers, with the signature of time and body."""
    text = f"{timestamp_s}.".encode() + body
    signature = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
    return {
        "content-type": "application/json",
        "user-agent": "worker",
        "x-worker-timestamp": str(timestamp_s),
        "x-worker-signature": f"sha256={signature}",
    }
