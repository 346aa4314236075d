"""Limits of the API's port, by raw sockets."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, read_all, status_of
from worker_run import eventually

from worker.api.authentication import BODY_MAX_BYTES
from worker.api.port.connection import AHEAD_MAX_BYTES
from worker.api.port.head import HEADERS_MAX
from worker.api.port.port import PortLimits
from worker.api.port.table import STALLED_MAX
from worker.stream.acceptor import HEAD_MAX_BYTES

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: api\r\n\r\n"
SHORT = {"head_timeout_s": 0.1, "body_timeout_s": 0.1, "stalled_s": 0.5}
POST = "POST /api/v1/inference"
BIG_FILE = "GET /docs-assets/swagger-ui-bundle.js"


@pytest.fixture
def serve(tmp_path) -> Iterator[Callable[..., ApiServer]]:
    """Start an API with limits."""
    with contextlib.ExitStack() as stack:

        def start(proxies: tuple[str, ...] = (), **limits: Any) -> ApiServer:
            server = ApiServer(tmp_path, PortLimits(**limits), proxies)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="module")
def api(tmp_path_factory) -> Iterator[ApiServer]:
    """An API with the limits that are documented."""
    server = ApiServer(tmp_path_factory.mktemp("api"), PortLimits())
    yield server
    server.stop()


def assert_refused(answer: bytes, status: int) -> None:
    """It is one HTTP answer with a JSON detail; 429 and 503 state when to retry."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == status, answer
    assert json.loads(body)["detail"]
    assert b"connection: close" in head.lower()
    assert (b"retry-after: " in head.lower()) == (status in (429, 503))


def healthy(server: ApiServer) -> bool:
    with server.connected(HEALTHZ) as connection:
        return status_of(connection.recv(1000)) == 200


# -- heads


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * HEAD_MAX_BYTES, 431),
        (b"GET / HTTP/1.1\r\nCookie: " + b"x" * HEAD_MAX_BYTES, 431),
        (b"GET /" + b"x" * HEAD_MAX_BYTES, 431),
        (b"x" * 2 * HEAD_MAX_BYTES, 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (HEADERS_MAX + 1) + b"\r\n", 431),
        (b"GET /\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nna me: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nname\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: \0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT api:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    ],
    ids=lambda _: "",
)
def test_bad_heads(api, data, status):
    """Each is refused at once, with an HTTP answer."""
    assert_refused(api.answer(data), status)
    assert healthy(api)


@pytest.mark.parametrize(
    "data",
    [
        HEALTHZ.replace(b"\r\n\r\n", b"\r\nCookie: " + b"x" * 16 * 1024 + b"\r\n\r\n"),
        HEALTHZ.replace(b"\r\n\r\n", b"\r\n" + b"a: b\r\n" * (HEADERS_MAX - 1) + b"\r\n"),
        HEALTHZ.replace(b"/healthz", b"http://api/healthz"),
        HEALTHZ.replace(b"/healthz", b"/health%7a"),
        b"\r\n" + HEALTHZ,
        HEALTHZ.replace(b"HTTP/1.1", b"HTTP/1.0"),
        HEALTHZ.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
        HEALTHZ.replace(b"\r\n\r\n", b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
        HEALTHZ.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        HEALTHZ.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"),
    ],
    ids=lambda _: "",
)
def test_good_heads(api, data):
    with api.connected(data) as connection:
        assert status_of(connection.recv(1000)) == 200
    with api.connected() as connection:
        for byte in data[:200]:
            connection.sendall(bytes([byte]))
        connection.sendall(data[200:])
        assert status_of(connection.recv(1000)) == 200


def test_head_has_no_body(api):
    head, _, body = api.answer(api.request("HEAD /")).partition(b"\r\n\r\n")
    assert status_of(head) == 200
    assert body == b""


def test_client_that_ends_its_side_gets_its_answer(api):
    with api.connected(api.request("GET /api/v1/tasks")) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert status_of(read_all(connection)) == 200


def test_incomplete_head_gets_408(serve):
    """The timeout counts from the connection, also while bytes keep arriving."""
    api = serve(**SHORT)
    with (
        api.connected() as silent,
        api.connected(b"GET / HTTP/1.1\r\n") as begun,
        api.connected() as trickling,
    ):
        eventually(lambda: send_a_byte(trickling) or len(api.refused) == 3)
        assert_refused(read_all(silent), 408)
        assert_refused(read_all(begun), 408)
    with api.connected(HEALTHZ + b"GET") as second:
        assert read_all(second).count(b"HTTP/1.1 ") == 2


def send_a_byte(connection):
    """Send a byte, unless the connection is closed."""
    with contextlib.suppress(OSError):
        connection.sendall(b"x")


def test_idle_connection_is_closed(api):
    with api.connected(HEALTHZ) as connection:
        assert read_all(connection).count(b"HTTP/1.1 200") == 1


# -- bodies


def test_key_is_checked_before_the_body(api):
    """A client without a valid key is refused before it has sent its body."""
    length = f"Content-Length: {BODY_MAX_BYTES}"
    for headers in ((length,), (length, "Expect: 100-continue"), ("Transfer-Encoding: chunked",)):
        for request in (
            api.request(POST, *headers, key=False),
            api.request(POST, *headers, "x-api-key: wk_bad", key=False),
        ):
            with api.connected(request) as connection:
                assert status_of(connection.recv(1000)) == 401


def test_client_that_waits_for_100_continue(api):
    body = json.dumps({"endpoint_name": "none", "input_parameters": {}}).encode()
    headers = (f"Content-Length: {len(body)}", "Content-Type: application/json")
    with api.connected(api.request(POST, *headers, "Expect: 100-continue")) as connection:
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert status_of(read_all(connection)) == 404


def chunks(*sizes: int) -> bytes:
    """A body in chunks, without its end."""
    return b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in sizes)


@pytest.mark.parametrize(
    ("line", "headers", "body"),
    [
        (POST, (f"Content-Length: {BODY_MAX_BYTES + 1}",), b""),
        (POST, (f"Content-Length: {4 * BODY_MAX_BYTES}",), b"x" * 2 * BODY_MAX_BYTES),
        ("POST /healthz", (f"Content-Length: {2**40}",), b"x" * BODY_MAX_BYTES),
        (POST, ("Transfer-Encoding: chunked",), chunks(*[16384] * 20)),
        (POST, ("Transfer-Encoding: chunked",), chunks(2 * BODY_MAX_BYTES)),
        (POST, ("Transfer-Encoding: chunked",), chunks(*[1] * 2 * BODY_MAX_BYTES)),
        (POST, ("Transfer-Encoding: chunked",), b"0\r\n" + b"a: b\r\n" * BODY_MAX_BYTES),
    ],
    ids=lambda _: "",
)
def test_bodies_that_are_too_large(api, line, headers, body):
    """Refused by the announced length, or when too much has arrived: payload, framing, trailers."""
    request = api.request(line, *headers)
    with api.connected(request) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(body)
        assert_refused(read_all(connection), 413)
    assert healthy(api)


def test_incomplete_body_gets_408(serve):
    """The timeout counts from the head, also while bytes keep arriving."""
    api = serve(**SHORT)
    request = api.request(POST, "Content-Length: 100000", "Content-Type: application/json")
    with api.connected(request) as silent, api.connected(request) as trickling:
        eventually(lambda: send_a_byte(trickling) or len(api.refused) == 2)
        assert_refused(read_all(silent), 408)
    assert {int(status) for status in api.refused} == {408}


def test_trailers_are_no_headers(api):
    """A key in the trailers of a body opens nothing."""
    end = f"0\r\nx-api-key: {api.key}\r\n\r\n".encode()
    request = api.request(POST, "Transfer-Encoding: chunked", key=False)
    assert status_of(api.answer(request + end)) == 401


def test_request_after_a_body_in_chunks_is_not_served(api):
    """The connection is closed after it, so nothing can be smuggled behind it."""
    request = b"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert api.answer(request + HEALTHZ).count(b"HTTP/1.1 ") == 1


# -- several requests on a connection


def test_pipelined_requests_are_answered_in_order(serve):
    api = serve()
    paths = ["/healthz", "/api/v1/endpoints", "/nothing"] * 30
    requests = b"".join(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nx-api-key: {api.key}\r\n\r\n".encode() for path in paths
    )
    assert len(requests) < AHEAD_MAX_BYTES
    with api.connected(requests) as connection:
        statuses = re.findall(rb"HTTP/1.1 (\d+)", read_all(connection))
    assert [int(status) for status in statuses] == [200, 200, 404] * 30


def pieces(data: bytes, size: int) -> list[bytes]:
    """The data in pieces of this size."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def test_bodies_of_pipelined_requests(serve):
    api = serve()
    post = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    with api.connected() as connection:
        for piece in pieces((post + HEALTHZ) * 10, 7):
            connection.sendall(piece)
        statuses = re.findall(rb"HTTP/1.1 (\d+)", read_all(connection))
    assert [int(status) for status in statuses] == [405, 200] * 10


def test_too_much_in_advance_ends_the_connection(api):
    """The requests before it are answered, and the client sees where its answers end."""
    ahead = HEALTHZ * (4 * AHEAD_MAX_BYTES // len(HEALTHZ))
    with api.connected() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(ahead)
        answers = read_all(connection)
        assert answers.count(b"HTTP/1.1 200") >= 1
    assert healthy(api)


# -- connections


def test_slow_connections_make_room(serve):
    """At the limit the oldest incomplete request gets 503, and complete ones are served."""
    api = serve(connections_max=32)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(api.connected(b"GET /")) for _ in range(100)]
        assert healthy(api)
        assert_refused(read_all(slow[0]), 503)
        assert healthy(api)
        # The descriptors are this process's: those of the clients, and of the connections kept.
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + len(slow) + 32


def test_another_address_keeps_its_connections(serve):
    """The address with the most connections loses them."""
    api = serve(connections_max=32)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(api.connected(HEALTHZ[:-1], source="127.0.0.2"))
        for _ in range(100):
            stack.enter_context(api.connected(b"GET /"))
        other.sendall(HEALTHZ[-1:])
        assert status_of(other.recv(1000)) == 200


def test_answers_that_are_not_read(serve):
    """A client that does not read is dropped, after a while, and sooner if there are many."""
    api = serve(connections_max=1024, **SHORT)
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(STALLED_MAX + 16):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(api.address)
            connection.sendall(api.request(BIG_FILE))
            connections.append(connection)
        for connection in connections:
            poll = select.poll()
            poll.register(connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
            assert eventually(lambda poll=poll: poll.poll(0), timeout_s=60)
    assert healthy(api)


def test_answers_that_are_not_read_make_room(serve):
    """Clients that read none of their answers exclude no other one."""
    api = serve(connections_max=32)
    with contextlib.ExitStack() as stack:
        for number in range(64):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.bind((f"127.0.0.{2 + number % 4}", 0))
            connection.connect(api.address)
            connection.sendall(api.request(BIG_FILE, key=False))
            assert select.select([connection], [], [], 10)[0]
        with api.connected(HEALTHZ, source="127.0.0.9") as other:
            assert status_of(other.recv(1000)) == 200


def test_behind_a_trusted_proxy_each_client_has_its_own_rate(serve):
    """The proxy's address is no client; without a proxy the header is ignored."""
    api = serve(proxies=("127.0.0.0/8",))
    flood = b"GET /x HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
    other = api.request("GET /x", "X-Forwarded-For: 192.0.2.2", key=False)
    for _ in range(2):
        answers = api.answer(flood * (AHEAD_MAX_BYTES // len(flood)))
    assert answers.rpartition(b"HTTP/1.1 ")[2].startswith(b"429 ")
    assert status_of(api.answer(other)) == 404
