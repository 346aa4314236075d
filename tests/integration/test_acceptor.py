"""Strangers who never finish a request are let go, and keep nobody out."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

import pytest
from worker_run import eventually

from worker.stream.acceptor import HEAD_MAX_BYTES, Acceptor

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PATIENCE_S = 10.0


class Served:
    """A front that works in a thread; what it hands over is answered with `ok`."""

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

    def _answer(self, connection, _address, _accepted_at):
        with connection:
            connection.recv(HEAD_MAX_BYTES)
            connection.sendall(b"ok")

    def _on_refused(self, _address, status):
        self.refused.append(status)

    def connect(self, data=b""):
        """A connection that has sent this."""
        connection = socket.create_connection(self.address, PATIENCE_S)
        connection.sendall(data)
        return connection

    def end(self, *, leave=False):
        """Serve no more; `leave`: somebody else will."""
        if self._over:
            return
        self._over = True
        self._thread.join()
        if leave:
            self._acceptor.leave("503 Service Unavailable", "somebody else will serve")
            self._listener.close()
        else:
            self._acceptor.close("409 Conflict", "it is over")
        self._epoll.close()


@pytest.fixture
def serve():
    """Start fronts with limits."""
    with contextlib.ExitStack() as stack:

        def start(listener=None, **limits):
            served = Served(listener, **limits)
            stack.callback(served.end)
            return served

        yield start


def answer(connection):
    """All that the server says until it closes."""
    said = b""
    while data := connection.recv(65536):
        said += data
    return said


def test_a_head_in_pieces(serve):
    """A request whose head comes byte by byte, in time, is handed over."""
    with serve().connect() as connection:
        for byte in HEAD:
            connection.sendall(bytes([byte]))
        assert answer(connection) == b"ok"


def test_a_head_that_never_ends(serve):
    """It gets 408 when its time is over, however often a byte of it arrives."""
    served = serve(head_timeout_s=0.3)
    with served.connect(b"GET / HTTP/1.1\r\n") as silent, served.connect() as trickling:
        eventually(lambda: send_a_byte(trickling) or len(served.refused) == 2)
        assert answer(silent).startswith(b"HTTP/1.1 408 ")
    eventually(lambda: served.refused == [408, 408])


def send_a_byte(connection):
    """As long as there is somebody to send it to."""
    with contextlib.suppress(OSError):
        connection.sendall(b"x")


def test_a_head_too_large(serve):
    """More than 8 KB of head get 431."""
    served = serve()
    with served.connect(b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_MAX_BYTES) as connection:
        assert answer(connection).startswith(b"HTTP/1.1 431 ")
    eventually(lambda: served.refused == [431])


def test_many_half_open(serve):
    """The oldest unfinished request makes room: a good one is served behind any number."""
    served = serve(half_open_max=4)
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(served.connect(b"GET /")) for _ in range(12)]
        good = stack.enter_context(served.connect(HEAD))
        assert answer(good) == b"ok"
        assert answer(strangers[0]).startswith(b"HTTP/1.1 503 ")
    eventually(lambda: len(served.refused) >= 8)
    assert set(served.refused) == {503}


def test_the_end(serve):
    """Unfinished requests are answered, and from then on nobody is there."""
    served = serve()
    with served.connect(b"GET /") as unfinished, served.connect(HEAD) as good:
        assert answer(good) == b"ok"
        served.end()
        assert answer(unfinished).startswith(b"HTTP/1.1 409 ")
    assert served.refused == [409]


def test_the_next_one(serve):
    """Who leaves the listener to another answers its unfinished requests, and keeps nobody out."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = serve(listener.dup())
        with first.connect(b"GET /") as unfinished, first.connect(HEAD) as good:
            assert answer(good) == b"ok"
            first.end(leave=True)
            assert answer(unfinished).startswith(b"HTTP/1.1 503 ")
        with first.connect(HEAD) as waiting:
            serve(listener.dup())
            assert answer(waiting) == b"ok"
