"""How many requests are served at once."""

from __future__ import annotations

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
