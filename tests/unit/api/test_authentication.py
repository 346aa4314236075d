"""The authentication middleware, as an ASGI app without FastAPI."""

from __future__ import annotations

import json

import pytest
from fakes import FakeAccounts

from worker.api.accounts import Account
from worker.api.authentication import BODY_MAX_BYTES, AuthenticationMiddleware
from worker.api.refusals import Refusal
from worker.errors import SettingError

KEY = "wk_alice"
ALICE = Account(name="alice", control=False)


class App:
    """Reads the whole body and answers 200."""

    def __init__(self):
        self.scopes = []
        self.body = b""

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        while True:
            message = await receive()
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"{}"})


async def request(app, path="/api/v1/tasks", headers=(), chunks=(b"",), accounts=None):
    """The status, headers and body of the response."""
    accounts = accounts or FakeAccounts({KEY: ALICE})
    middleware = AuthenticationMiddleware(app, accounts=accounts)
    messages = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        for number, chunk in enumerate(chunks)
    ]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
    await middleware(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def test_valid_key():
    """The request passes with its account, and its response is not cached."""
    app = App()
    status, headers, _ = await request(app, headers=[(b"x-api-key", KEY.encode())])
    assert status == 200
    assert app.scopes[0]["worker.account"] == ALICE
    assert headers[b"a"] == b"b"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"x-content-type-options"] == b"nosniff"


async def test_keys_cannot_be_read():
    """The request is refused with 503, because its key may be valid."""
    accounts = FakeAccounts({}, error=SettingError("the file is damaged"))
    headers = [(b"x-api-key", KEY.encode())]
    status, sent, body = await request(App(), headers=headers, accounts=accounts)
    assert (status, json.loads(body)) == (503, {"detail": "The API keys cannot be read"})
    assert int(sent[b"retry-after"]) > 0


@pytest.mark.parametrize("headers", [[], [(b"x-api-key", b"")], [(b"x-api-key", b"\xff")]])
async def test_no_valid_key(headers):
    app = App()
    status, sent, body = await request(app, headers=headers)
    assert (status, json.loads(body)) == (401, {"detail": "Invalid or missing API key"})
    assert sent[b"cache-control"] == b"no-store"
    assert app.scopes == []


@pytest.mark.parametrize("path", ["/", "/healthz", "/docs", "/apix", "/page/api/v1"])
async def test_unprotected_path(path):
    """Other paths need no key and get no headers."""
    app = App()
    status, headers, _ = await request(app, path=path)
    assert status == 200
    assert b"cache-control" not in headers
    assert "worker.account" not in app.scopes[0]


async def test_other_protocols_pass():
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)

    middleware = AuthenticationMiddleware(app, accounts=FakeAccounts({}))
    await middleware({"type": "lifespan"}, None, None)
    assert scopes == [{"type": "lifespan"}]


async def test_announced_body_is_too_large():
    """Refused before the body is read."""
    app = App()
    headers = [(b"x-api-key", KEY.encode()), (b"content-length", b"%d" % (BODY_MAX_BYTES + 1))]
    status, _, _ = await request(app, headers=headers)
    assert status == 413
    assert app.scopes == []


async def test_chunked_body_is_too_large():
    """Refused as soon as the limit is exceeded."""
    app = App()
    with pytest.raises(Refusal) as refused:
        await request(
            app,
            headers=[(b"x-api-key", KEY.encode())],
            chunks=(b"x" * BODY_MAX_BYTES, b"x", b"never read"),
        )
    assert refused.value.status_code == 413
    assert len(app.body) == BODY_MAX_BYTES


@pytest.mark.parametrize("length", [b"x", b"", b"1e9"])
async def test_invalid_content_length(length):
    """Ignored here: the HTTP server refuses it."""
    headers = [(b"x-api-key", KEY.encode()), (b"content-length", length)]
    assert (await request(App(), headers=headers))[0] == 200
