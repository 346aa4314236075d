"""Names are reserved once, for one worker after the other; missing ones are tried again."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest

from worker import linux
from worker.api.runners.local.isolation import reservations as module
from worker.api.runners.local.isolation.reservations import NoNames, Reservations
from worker.display import reserved


@pytest.fixture
def events():
    return []


@pytest.fixture
def taken(monkeypatch):
    """Displays that another process has."""
    numbers: set[int] = set()
    reserve = reserved.reserve

    def reserve_other(number, *, with_file):
        if number in numbers:
            raise OSError(errno.EADDRINUSE, "in use")
        return reserve(number, with_file=with_file)

    monkeypatch.setattr(reserved, "reserve", reserve_other)
    return numbers


@pytest.fixture
async def make(events):
    made = []

    def create(count, sleep=asyncio.sleep):
        def report(event, **fields):
            events.append((event, fields.get("reserved")))

        made.append(Reservations(count, with_files=False, report=report, sleep=sleep))
        return made[-1]

    yield create
    for each in made:
        each.close()


def connected(port):
    return socket.create_connection(("127.0.0.1", port), 5)


async def is_refused(port):
    with connected(port) as stale, pytest.raises(ConnectionResetError):
        await asyncio.to_thread(stale.recv, 1)
    return True


async def test_as_many_as_workers_may_run(make):
    """They differ; connections are refused unless a worker has them."""
    names = make(2)
    await names.open(lambda: None)
    first, second = names.take(), names.take()
    with pytest.raises(NoNames):
        names.take()
    assert first.port != second.port
    assert {each.display[0].getsockname() for each in (first, second)} != {None}
    for each in (first, second):
        connected(each.port).close()
        names.give_back(each)
        assert await is_refused(each.port)


async def test_names_are_used_again(make):
    """What was connected to the last worker is closed; that it stopped accepting has no effect."""
    names = make(1)
    await names.open(lambda: None)
    old = names.take()
    stale = connected(old.port)
    x_client = socket.socket(socket.AF_UNIX)
    x_client.connect(old.display[0].getsockname())
    linux.drop_connections(old.listener)
    names.give_back(old)
    assert names.take() is old
    with stale, pytest.raises(ConnectionResetError):
        stale.recv(1)
    with x_client:
        assert not x_client.recv(1)
    with connected(old.port) as viewer:
        viewer.sendall(b"x")
        with old.listener.accept()[0] as accepted:
            assert accepted.recv(2) == b"x"
    names.give_back(old)


@pytest.mark.parametrize("kind", ["port", "display"])
async def test_a_socket_that_a_worker_has_shut_down_is_replaced(make, kind):
    names = make(1)
    await names.open(lambda: None)
    old = names.take()
    (old.listener if kind == "port" else old.display[0]).shutdown(socket.SHUT_RDWR)
    names.give_back(old)
    assert await names.available()
    other = names.take()
    assert other is not old
    names.give_back(other)


@pytest.mark.parametrize("first", ["worker", "viewer"])
async def test_connections_of_the_last_worker(make, first):
    """Those that still exist, or are remembered by the kernel, prevent no further worker."""
    names = make(1)
    await names.open(lambda: None)
    old = names.take()
    for _ in range(3):
        viewer = connected(old.port)
        accepted = old.listener.accept()[0]
        for each in (accepted, viewer) if first == "worker" else (viewer, accepted):
            each.close()
    kept = connected(old.port)
    with kept, old.listener.accept()[0]:
        names.give_back(old)
        assert await names.available()
        assert names.take() is old
        connected(old.port).close()
    names.give_back(old)


async def test_a_flood_of_refused_viewers(make, monkeypatch):
    """After some the kernel drops them; the next worker gets viewers again."""
    monkeypatch.setattr(module, "_REFUSED_MAX", 3)
    names = make(1)
    await names.open(lambda: None)
    old = names.take()
    names.give_back(old)
    for _ in range(3):
        assert await is_refused(old.port)
    dropped = socket.socket()
    dropped.setblocking(False)
    with dropped:
        dropped.connect_ex(("127.0.0.1", old.port))
        assert await names.available()
        names.take()
        with connected(old.port), old.listener.accept()[0]:
            pass
    names.give_back(old)


async def test_a_worker_whose_end_takes_long_delays_no_other(make):
    """Further names are made until then."""
    names = make(1)
    await names.open(lambda: None)
    ending = names.take()
    assert await names.available()
    other = names.take()
    for each in (other, ending):
        names.give_back(each)
    assert names.take() is ending
    names.give_back(ending)
    assert other.listener.fileno() == -1


async def test_missing_names(make, events, taken):
    """It is reported once; attempts are repeated with back-off, and a start is requested."""
    pauses = []
    woken = []

    async def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            taken.clear()

    names = make(2, sleep)
    taken.update(reserved.NUMBERS)
    await names.open(lambda: woken.append(True))
    assert not await names.available()
    assert events == [("names.missing", 0)]
    await asyncio.wait_for(names.wanted(), 1)
    await names.fill()
    assert pauses == sorted(pauses)
    assert len(pauses) == 3
    assert events == [("names.missing", 0), ("names.reserved", 2)]
    assert len(woken) == 2
    assert await names.available()


async def test_a_worker_that_ends_wakes_the_queue(make, taken):
    """Its names are used again if another process has all others."""
    woken = []
    names = make(1)
    await names.open(lambda: woken.append(True))
    old = names.take()
    taken.update(reserved.NUMBERS)
    assert not await names.available()
    names.give_back(old)
    assert woken
    assert await names.available()


async def test_ports_are_taken(make, events, monkeypatch):
    """The same as for displays."""
    names = make(1)

    def no_port():
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    monkeypatch.setattr(module, "_listening", no_port)
    await names.open(lambda: None)
    assert events == [("names.missing", 0)]
    assert not await names.available()
