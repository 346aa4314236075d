"""HTTP answers that are sent without waiting for the peer, and without a thread or a task."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http import HTTPStatus

RETRY_AFTER: Final = {"Retry-After": "1"}
_UNREAD_MAX_BYTES: Final = 65536


def encode(
    status: HTTPStatus, body: Mapping[str, object], headers: Mapping[str, str], *, head: bool
) -> bytes:
    """An answer after which the connection is closed.

    Args:
        status: its status.
        body: sent as JSON.
        headers: in addition to those that every answer has.
        head: whether to leave the body out, for a HEAD request.
    """
    content = json.dumps(body)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        *(f"{name}: {value}" for name, value in headers.items()),
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", "" if head else content]).encode()


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


def refuse(
    connection: socket.socket,
    status: HTTPStatus,
    detail: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send a refusal and close.

    Args:
        connection: as for `send`.
        status: of the answer.
        detail: for its JSON body.
        headers: for the answer, such as Retry-After.
    """
    send(connection, encode(status, {"detail": detail}, headers or {}, head=False))
