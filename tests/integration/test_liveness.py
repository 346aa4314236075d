"""Whether an X server is alive, told by a new connection to it."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from worker.display import liveness

_NUMBERS = itertools.count(os.getpid() * 1000)  # of displays that no X server chooses
REFUSAL = b"\0"  # the first byte of the answer to a connection without a cookie


class FakeServer:
    """Listens as an X server; `act` gets each connection."""

    def __init__(self, act: Callable[[socket.socket], object]) -> None:
        number = next(_NUMBERS)
        self.display = f":{number}"
        self.kept: list[socket.socket] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.bind(f"\0/tmp/.X11-unix/X{number}")
        self.socket.listen()
        self._act = act
        asyncio.get_running_loop().add_reader(self.socket, self._accept)

    def _accept(self) -> None:
        connection, _ = self.socket.accept()
        self.kept.append(connection)
        self._act(connection)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket)
        for each in (self.socket, *self.kept):
            each.close()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Callable[[socket.socket], object]], FakeServer]]:
    servers: list[FakeServer] = []

    def start(act: Callable[[socket.socket], object]) -> FakeServer:
        servers.append(FakeServer(act))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


async def test_a_server_that_answers_is_alive(serve) -> None:
    server = serve(lambda connection: connection.send(REFUSAL))
    assert liveness.server_pid(server.display) == os.getpid()
    assert await liveness.answers(server.display, os.getpid())


async def test_a_server_that_closes_new_connections_is_ending(serve) -> None:
    server = serve(lambda connection: connection.close())
    assert not await liveness.answers(server.display, os.getpid())


async def test_a_server_that_ends_before_it_answers_is_ending(serve) -> None:
    """The kernel has taken the connection into the backlog, and resets it."""
    server = serve(lambda connection: None)
    asking = asyncio.ensure_future(liveness.answers(server.display, os.getpid()))
    while not server.kept:
        await asyncio.sleep(0)
    server.kept[0].close()
    assert not await asking


async def test_a_display_without_a_server_is_gone() -> None:
    assert not await liveness.answers(f":{next(_NUMBERS)}", os.getpid())


async def test_another_server_with_the_same_number_does_not_count(serve) -> None:
    """A display's number is free as soon as its server has ended."""
    server = serve(lambda connection: connection.send(REFUSAL))
    assert not await liveness.answers(server.display, 1)


@pytest.fixture
def reserved_display() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A display that this process has reserved, and its server, which answers nothing."""
    number = next(_NUMBERS)
    with socket.socket(socket.AF_UNIX) as reserved:
        reserved.bind(f"\0/tmp/.X11-unix/X{number}")
        listen = f"socket.socket(fileno={reserved.fileno()}).listen()"
        server = subprocess.Popen(
            [sys.executable, "-c", f"import socket; s = {listen}; print(flush=True); input()"],
            pass_fds=[reserved.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with server:
            assert server.stdout is not None
            server.stdout.readline()
            yield f":{number}", server
            server.kill()


async def test_a_reserved_display_whose_server_ends(reserved_display) -> None:
    """Another process has its socket too, so that a connection is neither refused nor closed."""
    display, server = reserved_display
    assert liveness.server_pid(display) == server.pid
    asking = asyncio.ensure_future(liveness.answers(display, server.pid))
    await asyncio.sleep(0)
    server.kill()
    assert not await asking


async def test_a_server_that_does_not_answer_in_time_may_go_on(
    serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped, or is busy."""
    monkeypatch.setattr(liveness, "TIMEOUT_S", 0.01)
    server = serve(lambda connection: None)
    assert await liveness.answers(server.display, os.getpid())
