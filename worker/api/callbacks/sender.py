"""Callbacks: an ended task's JSON, signed, POSTed to where its client asked.

A callback is delivered at least once. It carries

    x-worker-timestamp: <seconds since 1970>
    x-worker-signature: sha256=<hex of HMAC-SHA256(secret, timestamp + "." + body)>

where the secret is the text that `worker api-key ACCOUNT --callback-secret` prints.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import httpcore

from worker.api.callbacks.addresses import AddressNotPublic, PublicBackend
from worker.api.models import Task
from worker.api.runners.protocol import RunnerUnavailable

if TYPE_CHECKING:
    from worker.api.runners.protocol import Runner, TaskRecord

POLL_S: Final = 1.0
DELAYS_S: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Between the tries; with the tries' own time less than the runners' lease."""
_TRY_TIMEOUT_S: Final = 10.0
_AT_ONCE_MAX: Final = 20
_JITTER: Final = 0.2


class CallbackRejected(Exception):
    """This callback will never be taken: it is not tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Delivers what the runner says is owed; `run` never returns."""

    runner: Runner
    secret_of: Callable[[str], str]
    report: Callable[..., None]
    private: bool = False
    poll_s: float = POLL_S
    delays_s: tuple[float, ...] = DELAYS_S

    async def run(self) -> None:
        """Look for owed callbacks and deliver each, several at once."""
        places = asyncio.Semaphore(_AT_ONCE_MAX)
        pool = httpcore.AsyncConnectionPool(
            network_backend=None if self.private else PublicBackend(), max_keepalive_connections=0
        )
        async with pool, asyncio.TaskGroup() as deliveries:
            while True:
                try:
                    due = await self.runner.callbacks_due()
                except RunnerUnavailable:
                    due = ()  # its own requests say so; the next look may find it back
                for record in due:
                    await places.acquire()
                    delivery = deliveries.create_task(self._settle(pool, record))
                    delivery.add_done_callback(lambda _: places.release())
                await asyncio.sleep(self.poll_s)

    async def _settle(self, pool: httpcore.AsyncConnectionPool, record: TaskRecord) -> None:
        tries, why = await self._deliver(pool, record)
        try:
            await self.runner.callback_settled(record.task_id)
        except RunnerUnavailable as error:
            self.report("callback.unsettled", task_id=record.task_id, why=str(error))
        if why is None:
            self.report("callback.delivered", task_id=record.task_id, tries=tries)
        else:
            self.report("callback.failed", task_id=record.task_id, tries=tries, why=why)

    async def _deliver(
        self, pool: httpcore.AsyncConnectionPool, record: TaskRecord
    ) -> tuple[int, str | None]:
        """Try until it is taken; the number of tries, and why it was given up."""
        body = Task.of(record).model_dump_json().encode()
        why = ""
        for tries, delay_s in enumerate((*self.delays_s, None), 1):
            try:
                await self._post(pool, record, body)
            except CallbackRejected as error:
                return tries, str(error)
            except (httpcore.TimeoutException, httpcore.NetworkError, TimeoutError) as error:
                why = str(error) or type(error).__name__
            except (httpcore.ProtocolError, _NotTaken) as error:
                why = str(error)
            else:
                return tries, None
            if delay_s is not None:
                await asyncio.sleep(delay_s * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311
        return len(self.delays_s) + 1, why

    async def _post(
        self, pool: httpcore.AsyncConnectionPool, record: TaskRecord, body: bytes
    ) -> None:
        headers = signed(self.secret_of(record.account), body, int(time.time()))
        try:
            async with asyncio.timeout(_TRY_TIMEOUT_S):
                async with pool.stream(
                    "POST", record.callback_url or "", headers=headers, content=body
                ) as answer:
                    status = answer.status
        except (AddressNotPublic, httpcore.UnsupportedProtocol, UnicodeError, ValueError) as error:
            raise CallbackRejected(str(error)) from error
        if status == HTTPStatus.GONE:
            raise CallbackRejected("HTTP 410")
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise _NotTaken(f"HTTP {status}")  # a redirect too: it could lead anywhere


class _NotTaken(Exception):
    """Not this time."""


def signed(secret: str, body: bytes, timestamp_s: int) -> dict[bytes | str, bytes | str]:
    """A callback's headers."""
    text = f"{timestamp_s}.".encode() + body
    signature = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
    return {
        "content-type": "application/json",
        "user-agent": "worker",
        "x-worker-timestamp": str(timestamp_s),
        "x-worker-signature": f"sha256={signature}",
    }
