"""Floods of complete requests: the others, also from the same address, are served."""

from __future__ import annotations

import contextlib
import socket
import ssl
import uuid
from pathlib import Path

import httpx
import pytest
from flood import flooded
from stream_server import TASK_ID, StreamServerProcess
from websocket_client import open_tcp, upgrade

from worker.stream import tokens

PER_S = 2000
VIEWERS = 20
PROBES = 10
HEADER_LINES_BYTES = 2**20
HEADER_LINES_CLIENTS = 64
SLOW_CLIENTS = 700
GROWTH_MAX_BYTES = 64 * 2**20
UNUSED_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # httpx would load one for each request
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


def request(target: str, *headers: str, method: str = "GET", body: str = "") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers]
    return "\r\n".join([*lines, "", body]).encode()


def stream(token: str) -> bytes:
    return request(f"/tasks/{TASK_ID}/websockify?token={token}", *UPGRADE)


def get(url: str, **headers: str) -> int:
    return httpx.get(url, headers=headers, timeout=30, verify=UNUSED_TLS).status_code


@pytest.mark.parametrize(
    "flood",
    [
        stream("a.bad.token"),
        stream(tokens.mint(b"another key" * 3, TASK_ID)),
        request("/tasks/another/websockify", *UPGRADE),
        request("/"),
        request("/nothing", method="POST"),
        request("/healthz"),
        request("/metrics"),
        b"\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\n" + b"a: b\r\n" * 90 + b"\r\n",
    ],
    ids=lambda _: "",
)
def test_viewers_are_admitted_during_a_flood(tmp_path: Path, flood: bytes) -> None:
    """All viewers and all probes from the address of a flood are served."""
    with StreamServerProcess(tmp_path, max_viewers=VIEWERS) as server:
        with (
            flooded(server.port, flood, per_s=PER_S) as answers,
            contextlib.ExitStack() as stack,
        ):
            for _ in range(VIEWERS):
                tcp = open_tcp("127.0.0.1", server.port, timeout_s=30)
                viewer = upgrade(tcp, server.url(server.token()), headers={}, timeout_s=30)
                stack.callback(viewer.abort)
            for path in ("/healthz", "/readyz") * PROBES:
                assert get(f"http://127.0.0.1:{server.port}{path}") == 200
        assert sum(answers.values()) > PROBES
        assert set(answers) <= {0, 200, 400, 401, 404, 405, 429, 503}


def test_viewer_whose_token_is_refused_again_and_again(tmp_path: Path) -> None:
    """A flood with a token that opens nothing now does not delay the other viewers."""
    with StreamServerProcess(tmp_path, max_viewers=1) as server:
        first = upgrade(
            open_tcp("127.0.0.1", server.port, timeout_s=30),
            server.url(server.token()),
            headers={},
            timeout_s=30,
        )
        with flooded(server.port, stream(server.token()), per_s=PER_S) as answers:
            for _ in range(PROBES):
                assert get(f"http://127.0.0.1:{server.port}/healthz") == 200
        first.abort()
    assert set(answers) <= {0, 429, 503}


def test_api_serves_others_during_floods(serve) -> None:
    """Requests with a key and probes from the address of a flood are served."""
    api = serve()
    key = api.key("alice")
    flooder = f"x-api-key: {api.key('mallory')}"
    port = httpx.URL(api.url).port
    assert port is not None
    for flood in (
        request("/api/v1/tasks"),
        request("/api/v1/tasks", "x-api-key: wk_bad"),
        request("/api/v1/inference", "Content-Length: 4", method="POST", body="{  }"),
        request("/api/v1/inference", "Content-Length: 200000", method="POST"),
        request(f"/api/v1/tasks/{uuid.uuid4()}/stream", flooder),
        request("/novnc/core/rfb.js"),
        request("/nothing"),
        request("/healthz"),
        request("/metrics"),
        request("/", method="OPTIONS"),
    ):
        with flooded(port, flood, per_s=PER_S) as answers:
            for _ in range(PROBES):
                assert get(f"{api.url}/healthz") == 200
                assert get(f"{api.url}/readyz") == 200
                assert get(f"{api.url}/api/v1/tasks", **{"x-api-key": key}) == 200
        assert set(answers) <= {0, 200, 400, 401, 404, 405, 429, 503}
    assert api.stderr == ""


def test_memory_of_the_api_is_bounded(serve) -> None:
    """Header lines without end and slow connections cost little memory; others are served."""
    api = serve()
    key = api.key("alice")
    port = httpx.URL(api.url).port
    assert get(f"{api.url}/api/v1/tasks", **{"x-api-key": key}) == 200
    before = rss_bytes(api.process.pid)
    lines = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (HEADER_LINES_BYTES // 6)
    with contextlib.ExitStack() as stack:
        for _ in range(HEADER_LINES_CLIENTS):
            connection = stack.enter_context(open_tcp("127.0.0.1", port, timeout_s=30))
            with contextlib.suppress(ConnectionError):
                connection.sendall(lines)
        for number in range(SLOW_CLIENTS):
            connection = stack.enter_context(socket.socket())
            with contextlib.suppress(ConnectionError):
                connection.connect(("127.0.0.1", port))
                connection.sendall(b"GET / HTTP/1.1\r\nCookie: " + b"x" * (number % 2 * 30_000))
        assert get(f"{api.url}/healthz") == 200
        assert get(f"{api.url}/api/v1/tasks", **{"x-api-key": key}) == 200
        assert rss_bytes(api.process.pid) - before < GROWTH_MAX_BYTES
    assert api.stderr == ""


def rss_bytes(pid: int) -> int:
    """A process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
