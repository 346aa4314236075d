"""The latest answers to probes, which answer the rest of a flood of probes."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FRESH_S: Final = 1.0
STALE_MAX_S: Final = 10.0


class ProbeAnswers:
    """One answer for each path, which is repeated while it is fresh."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: dict[str, tuple[float, bytes]] = {}
        self._running: Counter[str] = Counter()

    def latest(self, path: str) -> bytes | None:
        """The latest answer; None if it is time for another, or there is none.

        It is repeated for `FRESH_S`, and for `STALE_MAX_S` while another one is being made.
        """
        found = self._answers.get(path)
        limit_s = STALE_MAX_S if self._running[path] else FRESH_S
        return None if found is None or self._clock() - found[0] > limit_s else found[1]

    def recording(self, app: ASGIApp) -> ASGIApp:
        """The app, whose answers are kept."""

        async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
            answer = b""
            path = scope["path"]

            async def send_and_keep(message: Message) -> None:
                nonlocal answer
                if message["type"] == "http.response.start":
                    answer = _head(message)
                else:
                    answer += message.get("body", b"")
                    if not message.get("more_body"):
                        self._answers[path] = (self._clock(), answer)
                await send(message)

            self._running[path] += 1
            try:
                await app(scope, receive, send_and_keep)
            finally:
                self._running[path] -= 1

        return recorded


def _head(message: Message) -> bytes:
    status = HTTPStatus(message["status"])
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in message.get("headers", ())]
    return b"\r\n".join([*lines, b"connection: close", b"", b""])
