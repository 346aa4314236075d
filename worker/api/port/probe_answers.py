"""The latest answers to probes, which answer the rest of a flood of probes."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FRESH_S: Final = 1.0


class ProbeAnswers:
    """One answer for each path, for as long as it is fresh."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: dict[str, tuple[float, bytes, bytes]] = {}

    def fresh(self, path: str, *, head: bool) -> bytes | None:
        """An answer that is at most `FRESH_S` old, without its body for a HEAD request."""
        found = self._answers.get(path)
        if found is None or self._clock() - found[0] > FRESH_S:
            return None
        return found[1] if head else found[1] + found[2]

    def recording(self, app: ASGIApp) -> ASGIApp:
        """The app, whose answers to GET are kept."""

        async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
            head, body = b"", b""

            async def send_and_keep(message: Message) -> None:
                nonlocal head, body
                if message["type"] == "http.response.start":
                    head = _head(message)
                else:
                    body += message.get("body", b"")
                    if not message.get("more_body") and scope["method"] == "GET":
                        self._answers[scope["path"]] = (self._clock(), head, body)
                await send(message)

            await app(scope, receive, send_and_keep)

        return recorded


def _head(message: Message) -> bytes:
    status = HTTPStatus(message["status"])
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in message.get("headers", ())]
    return b"\r\n".join([*lines, b"connection: close", b"", b""])
