"""Authenticates requests to `/api/` and limits their bodies, before a body is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.api import refusals

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from worker.api.accounts import Accounts
    from worker.api.refusals import Refusal

BODY_MAX_BYTES: Final = 256 * 1024
_RETRY_AFTER_S: Final = 5
PROTECTED_PREFIX: Final = "/api/"
_HEADERS: Final = (
    (b"cache-control", b"no-store"),  # a stream URL contains a token that is valid for a minute
    (b"x-content-type-options", b"nosniff"),
)


class AuthenticationMiddleware:
    """ASGI middleware: refuses requests without a valid API key or with too large a body."""

    def __init__(self, app: ASGIApp, *, accounts: Accounts) -> None:
        self._app = app
        self._accounts = accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its account in the scope, or refuse it."""
        if scope["type"] != "http" or not scope["path"].startswith(PROTECTED_PREFIX):
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        headers = dict(scope["headers"])
        account = self._accounts.authenticate(headers.get(b"x-api-key", b"").decode("latin-1"))
        refused = self._refusal() if account is None else None
        if refused is None and _content_length(headers) > BODY_MAX_BYTES:
            refused = refusals.too_large(BODY_MAX_BYTES)
        if refused is not None:
            await refusals.response(refused)(scope, receive, send_with_headers)
            return
        scope["worker.account"] = account
        await self._app(scope, _with_limit(receive), send_with_headers)

    def _refusal(self) -> Refusal:
        if self._accounts.error is not None:  # the key may be valid
            return refusals.unavailable("The API keys cannot be read", _RETRY_AFTER_S)
        return refusals.invalid_key()


def _content_length(headers: dict[bytes, bytes]) -> int:
    try:
        return int(headers.get(b"content-length", b"0"))
    except ValueError:
        return 0


def _with_limit(receive: Receive) -> Receive:
    """Raise once a body that is sent in chunks exceeds the limit."""
    received_bytes = 0

    async def receive_limited() -> Message:
        nonlocal received_bytes
        message = await receive()
        if message["type"] == "http.request":
            received_bytes += len(message.get("body", b""))
            if received_bytes > BODY_MAX_BYTES:
                raise refusals.too_large(BODY_MAX_BYTES)
        return message

    return receive_limited
