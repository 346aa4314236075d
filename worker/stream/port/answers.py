"""HTTP answers that are sent without waiting for the peer, and without a thread or a task."""

from __future__ import annotations

import contextlib
import json
import socket
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRY_AFTER_S: Final = 1
_RETRIED: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_UNREAD_MAX_BYTES: Final = 65536


def encode(status: HTTPStatus, body: Mapping[str, object], *, head: bool) -> bytes:
    """An answer after which the connection is closed; 429 and 503 have a Retry-After.

    Args:
        status: its status.
        body: sent as JSON.
        head: whether to leave the body out, for a HEAD request.
    """
    content = json.dumps(body)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        *([f"Retry-After: {RETRY_AFTER_S}"] if status in _RETRIED else []),
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", "" if head else content]).encode()


@lru_cache
def refusal(status: HTTPStatus, detail: str, *, head: bool = False) -> bytes:
    """An error answer with one of a few details, as for `encode`."""
    return encode(status, {"detail": detail}, head=head)


def send(connection: socket.socket, answer: bytes) -> None:
    """Send an answer and close, without waiting.

    Args:
        connection: the peer's, whose request is unread.
        answer: short enough for the kernel's buffer.
    """
    with connection, contextlib.suppress(OSError):
        connection.setblocking(False)
        connection.send(answer)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(_UNREAD_MAX_BYTES)  # unread data would reset it, and lose the answer
