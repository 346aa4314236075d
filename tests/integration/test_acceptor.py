"""Limits on connections that have not sent a whole request."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from http import HTTPStatus

import pytest
from worker_run import eventually

from worker.stream.acceptor import HEAD_MAX_BYTES, Acceptor

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PATIENCE_S = 10.0


class Served:
    """An acceptor that runs in a thread and answers each complete request with `ok`."""

    def __init__(self, listener=None, **limits):
        self.refused = []
        self._over = False
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._epoll = select.epoll()
        self._acceptor = Acceptor(
            self._listener, self._epoll, self._answer, self._on_refused, **limits
        )
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while not self._over:
            left = self._acceptor.expire()
            for descriptor, _ in self._epoll.poll(0.02 if left is None else min(left, 0.02)):
                self._acceptor.handle(descriptor)

    def _answer(self, connection, _address, _accepted_at, _head):
        with connection:
            connection.recv(HEAD_MAX_BYTES)
            connection.sendall(b"ok")

    def _on_refused(self, _address, status):
        self.refused.append(status)

    def connect(self, data=b"", source="127.0.0.1"):
        """Open a connection from an address and send `data`."""
        connection = socket.create_connection(self.address, PATIENCE_S, (source, 0))
        connection.sendall(data)
        return connection

    def end(self, *, leave=False):
        """Stop; with `leave`, another acceptor continues on the same listener."""
        if self._over:
            return
        self._over = True
        self._thread.join()
        if leave:
            self._acceptor.leave(HTTPStatus.SERVICE_UNAVAILABLE, "another server continues")
            self._listener.close()
        else:
            self._acceptor.close(HTTPStatus.CONFLICT, "it is over")
        self._epoll.close()


@pytest.fixture
def serve():
    """Start acceptors with limits."""
    with contextlib.ExitStack() as stack:

        def start(listener=None, **limits):
            served = Served(listener, **limits)
            stack.callback(served.end)
            return served

        yield start


def answer(connection):
    """Read until the server closes."""
    said = b""
    while data := connection.recv(65536):
        said += data
    return said


def test_head_that_arrives_byte_by_byte_is_accepted(serve):
    """A request whose head arrives byte by byte, before the timeout, is handed over."""
    with serve().connect() as connection:
        for byte in HEAD:
            connection.sendall(bytes([byte]))
        assert answer(connection) == b"ok"


def test_incomplete_head_gets_408(serve):
    """The timeout counts from the connection, also while bytes keep arriving."""
    served = serve(head_timeout_s=0.3)
    with served.connect(b"GET / HTTP/1.1\r\n") as silent, served.connect() as trickling:
        eventually(lambda: send_a_byte(trickling) or len(served.refused) == 2)
        assert answer(silent).startswith(b"HTTP/1.1 408 ")
    eventually(lambda: served.refused == [408, 408])


def send_a_byte(connection):
    """Send a byte, unless the connection is closed."""
    with contextlib.suppress(OSError):
        connection.sendall(b"x")


def test_head_with_16_kb_of_cookies_is_accepted(serve):
    served = serve()
    cookies = b"Cookie: " + b"x" * 16 * 1024 + b"\r\n"
    with served.connect(HEAD.replace(b"\r\n\r\n", b"\r\n" + cookies + b"\r\n")) as connection:
        assert answer(connection) == b"ok"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\r\n",
        b"GET /\n",
        b"\x16\x03\x01\x02\n",
        b"GET /\xff HTTP/1.1\r\n",
        b"\r\n",
        b"GET / x\r\n",
    ],
)
def test_other_protocols_get_400_at_once(serve, data):
    """What does not begin with an HTTP request line is refused without waiting for more."""
    served = serve()
    with served.connect(data) as connection:
        assert answer(connection).startswith(b"HTTP/1.1 400 ")
    eventually(lambda: served.refused == [400])


def test_head_larger_than_32_kb_gets_431(serve):
    served = serve()
    with served.connect(b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_MAX_BYTES) as connection:
        assert answer(connection).startswith(b"HTTP/1.1 431 ")
    eventually(lambda: served.refused == [431])


def test_oldest_incomplete_request_makes_room(serve):
    """At the limit the oldest incomplete request gets 503, and a complete one is served."""
    served = serve(half_open_max=4)
    with contextlib.ExitStack() as stack:
        incomplete = [stack.enter_context(served.connect(b"GET /")) for _ in range(12)]
        good = stack.enter_context(served.connect(HEAD))
        assert answer(good) == b"ok"
        assert answer(incomplete[0]).startswith(b"HTTP/1.1 503 ")
    eventually(lambda: len(served.refused) >= 8)
    assert set(served.refused) == {503}


def test_the_client_with_the_most_incomplete_requests_makes_room(serve):
    """Another client's incomplete request is not refused for it."""
    served = serve(half_open_max=4)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(served.connect(HEAD[:-1], source="127.0.0.2"))
        for _ in range(12):
            stack.enter_context(served.connect(b"GET /"))
        eventually(lambda: len(served.refused) >= 9)
        other.sendall(HEAD[-1:])
        assert answer(other) == b"ok"


def test_close_answers_incomplete_requests(serve):
    """Incomplete requests get the given status when the acceptor closes."""
    served = serve()
    with served.connect(b"GET /") as unfinished, served.connect(HEAD) as good:
        assert answer(good) == b"ok"
        served.end()
        assert answer(unfinished).startswith(b"HTTP/1.1 409 ")
    assert served.refused == [409]


def test_leave_keeps_the_listener_for_the_next_server(serve):
    """Incomplete requests get 503; new connections stay in the backlog for the next server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = serve(listener.dup())
        with first.connect(b"GET /") as unfinished, first.connect(HEAD) as good:
            assert answer(good) == b"ok"
            first.end(leave=True)
            assert answer(unfinished).startswith(b"HTTP/1.1 503 ")
        with first.connect(HEAD) as waiting:
            serve(listener.dup())
            assert answer(waiting) == b"ok"
