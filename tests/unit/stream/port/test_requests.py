"""How many requests are served at once."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from worker.stream.port.requests import (
    OTHER_THREADS_MAX,
    OTHER_THREADS_PER_CLIENT,
    THREADS_MAX,
    RequestThreads,
)
from worker.stream.port.triage import Kind, Request


@pytest.fixture
def gate():
    """Requests last until the gate is open."""
    opened = threading.Event()
    yield opened
    opened.set()


def started(threads, gate, kind, address, count, viewers=0):
    """How many of so many requests get a thread."""
    request = Request(kind=kind, address=address)
    return sum(threads.start(request, lambda: gate.wait() and None, viewers) for _ in range(count))


def test_requests_without_a_token_leave_threads_for_viewers(gate):
    threads = RequestThreads()
    assert started(threads, gate, Kind.OTHER, "a", 99) == OTHER_THREADS_PER_CLIENT
    left = OTHER_THREADS_MAX - OTHER_THREADS_PER_CLIENT
    assert started(threads, gate, Kind.OTHER, "b", 99) == left
    assert started(threads, gate, Kind.VIEWER, "a", 999) == THREADS_MAX - OTHER_THREADS_MAX
    assert started(threads, gate, Kind.VIEWER, "a", 999, viewers=10) == 10
    gate.set()
    threads.join(10)
    assert started(threads, gate, Kind.OTHER, "a", 1) == 1
    threads.join(10)


class Served:
    """Requests that last until their connections end."""

    def __init__(self, threads):
        self.threads = threads
        self.stack = contextlib.ExitStack()
        self.peers = []
        self.over = []

    def start(self, address, *, becomes_viewer=False):
        """Whether a request gets a thread; `over` gets its address when it has ended."""
        own, peer = map(self.stack.enter_context, socket.socketpair())
        begun = threading.Event()

        def serve():
            if becomes_viewer:
                self.threads.became_viewer()
            begun.set()
            own.recv(1)
            own.close()
            self.over.append(address)

        got = self.threads.start(Request(kind=Kind.OTHER, address=address), serve, 0, own)
        assert not got or begun.wait(10)
        self.peers.append(peer)
        return got

    def end(self):
        for peer in self.peers:
            peer.shutdown(socket.SHUT_RDWR)
        self.threads.join(10)
        self.stack.close()


@pytest.fixture
def served():
    requests = Served(RequestThreads())
    yield requests
    requests.end()


@pytest.mark.parametrize("addresses", [2, 12])
def test_client_with_the_most_threads_makes_room(served, addresses):
    """Requests of some addresses that do not end refuse no request of another address."""
    flood = [f"192.0.2.{number}" for number in range(addresses)]
    for number in range(100):
        served.start(flood[number % addresses])
    for number in range(5):
        assert served.start(f"198.51.100.{number}")
    assert not set(served.over) - set(flood)


def test_addresses_of_one_ipv6_network_are_one_client(served):
    got = [served.start(f"2001:db8::{number:x}") for number in range(1, 40)]
    assert sum(got) == OTHER_THREADS_PER_CLIENT


def test_request_that_became_a_viewer_is_not_ended(served):
    """It does not count among the requests without a valid token either."""
    assert all(served.start("a", becomes_viewer=True) for _ in range(OTHER_THREADS_MAX))
    assert all(served.start(f"b{number}") for number in range(OTHER_THREADS_MAX))
    assert served.start("b0") is False
    assert served.over == []
