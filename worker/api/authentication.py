"""The gate: what is checked of every request to `/api/`, before its body is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.api import refusals

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from worker.api.accounts import Accounts

BODY_MAX_BYTES: Final = 256 * 1024
GUARDED: Final = "/api/"
_HEADERS: Final = (
    (b"cache-control", b"no-store"),  # a stream URL is a secret for a minute
    (b"x-content-type-options", b"nosniff"),
)


class AuthenticationMiddleware:
    """ASGI middleware: no key, no entry; and no body beyond the limit."""

    def __init__(self, app: ASGIApp, *, accounts: Accounts) -> None:
        self._app = app
        self._accounts = accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http" or not scope["path"].startswith(GUARDED):
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        headers = dict(scope["headers"])
        account = self._accounts.authenticate(headers.get(b"x-api-key", b"").decode("latin-1"))
        refused = refusals.invalid_key() if account is None else None
        if refused is None and _length(headers) > BODY_MAX_BYTES:
            refused = refusals.too_large(BODY_MAX_BYTES)
        if refused is not None:
            await refusals.answer(refused)(scope, receive, send_safely)
            return
        scope["worker.account"] = account
        await self._app(scope, _limited(receive), send_safely)


def _length(headers: dict[bytes, bytes]) -> int:
    try:
        return int(headers.get(b"content-length", b"0"))
    except ValueError:
        return 0


def _limited(receive: Receive) -> Receive:
    """The body as it comes in, unless (sent in chunks) it comes to more than the limit."""
    taken_bytes = 0

    async def limited() -> Message:
        nonlocal taken_bytes
        message = await receive()
        if message["type"] == "http.request":
            taken_bytes += len(message.get("body", b""))
            if taken_bytes > BODY_MAX_BYTES:
                raise refusals.too_large(BODY_MAX_BYTES)
        return message

    return limited
