"""The session's end of the channel to its stream servers."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from worker.session.stream_channel import StreamChannel
from worker.stream.messages import (
    FROM_SESSION,
    PACKET_MAX_BYTES,
    DisplayReady,
    DisplayReleased,
    DisplayRequested,
    FromSession,
    FromStreamServer,
    State,
    StreamConfig,
    receive_configuration,
)
from worker.stream.tokens import Role
from worker.wire import encode

CONFIG = StreamConfig(
    task_id="a-task",
    target="task.py:run",
    started_at="2026-01-01T00:00:00.000Z",
    key_hex="00" * 32,
    x11vnc_socket="/view.sock",
    x11vnc_control_socket="/control.sock",
    max_viewers=16,
    novnc_dir=None,
)


class FakeDisplay:
    """Records which viewers need it."""

    def __init__(self) -> None:
        self.viewers: set[int] = set()

    async def acquire(self, viewer: int) -> bool:
        self.viewers.add(viewer)
        return True

    def release(self, viewer: int) -> None:
        self.viewers.discard(viewer)

    def release_all(self) -> None:
        self.viewers.clear()


class Server:
    """A stream server that is connected to the channel."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(path))

    def send(self, message: FromStreamServer) -> None:
        self.socket.send(encode(message))

    def configured(self) -> State:
        received = receive_configuration(self.socket)
        assert received is not None
        received[0].close()
        return received[1].state

    async def receive(self, kind: type[FromSession]) -> FromSession:
        """The next message of this type."""
        loop = asyncio.get_running_loop()
        self.socket.setblocking(False)
        async with asyncio.timeout(10):
            while True:
                packet = await loop.sock_recv(self.socket, PACKET_MAX_BYTES)
                message = FROM_SESSION.decode(packet)
                if isinstance(message, kind):
                    return message


@pytest.fixture
def display() -> FakeDisplay:
    return FakeDisplay()


@pytest.fixture
async def channel(tmp_path: Path, display: FakeDisplay) -> AsyncIterator[StreamChannel]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = StreamChannel(
            path=tmp_path / "stream.sock",
            config=CONFIG,
            listener=listener,
            parent_pid=os.getppid(),  # this process plays the stream server
            displays={Role.VIEW: display, Role.CONTROL: FakeDisplay()},
            emit=lambda name, **fields: None,
        )
        yield made
        made.close()


async def turns(count: int = 20) -> None:
    """Let the event loop handle what has arrived on local sockets."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_viewer_acquires_and_releases_the_display(channel, display, tmp_path) -> None:
    server = Server(tmp_path / "stream.sock")
    await turns()
    assert server.configured() is State.STARTING
    server.send(DisplayRequested(viewer=7, role=Role.VIEW))
    assert await server.receive(DisplayReady) == DisplayReady(viewer=7, up=True)
    assert display.viewers == {7}
    server.send(DisplayReleased(viewer=7, role=Role.VIEW))
    await turns()
    assert display.viewers == set()
    server.socket.close()


async def test_the_end_of_a_stream_server_releases_its_viewers(channel, display, tmp_path) -> None:
    server = Server(tmp_path / "stream.sock")
    await turns()
    server.configured()
    server.send(DisplayRequested(viewer=7, role=Role.VIEW))
    await server.receive(DisplayReady)
    server.socket.close()
    await turns()
    assert display.viewers == set()


async def test_a_request_of_a_replaced_stream_server_acquires_nothing(
    channel, display, tmp_path
) -> None:
    """The session may read the request and accept the next server in one turn of its loop."""
    first = Server(tmp_path / "stream.sock")
    await turns()
    first.configured()
    first.send(DisplayRequested(viewer=7, role=Role.VIEW))
    first.socket.close()
    second = Server(tmp_path / "stream.sock")
    await turns()
    second.configured()
    assert display.viewers == set()
    second.socket.close()


async def test_another_process_than_supervisord_s_gets_no_configuration(channel, tmp_path) -> None:
    channel._parent_pid = 1
    server = Server(tmp_path / "stream.sock")
    await turns()
    assert receive_configuration(server.socket) is None
    server.socket.close()
