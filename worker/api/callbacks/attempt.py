"""One attempt to deliver a callback: its body, its signature, and the request."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import httpcore

from worker.api.callbacks.addresses import AddressNotPublic, PublicBackend
from worker.api.models import Task
from worker.api.runners.protocol import NULL

if TYPE_CHECKING:
    from worker.api.runners.protocol import TaskRecord
    from worker.api.runners.threads import SharedThreads

TIMEOUT_S: Final = 10.0
BODY_MAX_BYTES: Final = 1 << 20
_ERROR_MAX_CHARS: Final = 10_000


class CallbackRejected(Exception):
    """This callback can never be delivered: no further attempt is made."""


class NotAccepted(Exception):
    """The receiver did not accept this attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Sends callbacks; `lookups` are the threads in which host names are resolved."""

    secret_of: Callable[[str], str]
    lookups: SharedThreads
    private: bool = False

    async def send(self, task: TaskRecord | None) -> None:
        """Make one attempt, within TIMEOUT_S.

        Args:
            task: the task as it is now; None if it was removed.

        Raises:
            CallbackRejected: it can never be delivered.
            Exception: this attempt failed.
        """
        if task is None:
            raise CallbackRejected("the task was removed")
        body = body_of(task)
        headers = signed_headers(self.secret_of(task.account), body, int(time.time()))
        backend = PublicBackend(partial(self._resolve, task.account), private=self.private)
        # A pool for each attempt: a shared one would let attempts wait for others' connections.
        pool = httpcore.AsyncConnectionPool(network_backend=backend, max_keepalive_connections=0)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                async with (
                    pool,
                    pool.stream(
                        "POST", task.callback_url or "", headers=headers, content=body
                    ) as answer,
                ):
                    status = answer.status
        except (AddressNotPublic, httpcore.UnsupportedProtocol, UnicodeError, ValueError) as error:
            raise CallbackRejected(str(error)) from error
        if status == HTTPStatus.GONE:
            raise CallbackRejected("HTTP 410")
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise NotAccepted(f"HTTP {status}")  # redirects too: they could lead to any address

    async def _resolve(self, account: str, host: str, port: int) -> list[Any]:
        return await self.lookups.call(
            account, socket.getaddrinfo, host, port, type=socket.SOCK_STREAM
        )


def body_of(task: TaskRecord) -> bytes:
    """The JSON of an ended task; without its output if it is larger than BODY_MAX_BYTES."""
    if len(task.output) <= BODY_MAX_BYTES:
        body = Task.json_of(task)
        if len(body) <= BODY_MAX_BYTES:
            return body
    small = dataclasses.replace(task, output=NULL, output_omitted=True)
    body = Task.json_of(small)
    if len(body) <= BODY_MAX_BYTES or task.error is None:
        return body
    error = {name: str(task.error.get(name))[:_ERROR_MAX_CHARS] for name in ("type", "message")}
    return Task.json_of(dataclasses.replace(small, error=error))


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
