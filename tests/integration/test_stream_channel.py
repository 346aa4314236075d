"""The session's end of the channel to its stream servers."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from worker.errors import SessionLost
from worker.session.stream_channel import StreamChannel
from worker.stream.messages import (
    FROM_SESSION,
    PACKET_MAX_BYTES,
    DisplayLost,
    DisplayReady,
    DisplayReleased,
    DisplayRequested,
    DisplayRestarting,
    FromSession,
    FromStreamServer,
    ServerRestarting,
    State,
    StreamConfig,
    Terminated,
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


class FakePrograms:
    """What supervisord reports.

    Attributes:
        reported: the stream server's process.
        lives: whether the display and supervisord run.
        asked: how often this was asked.
    """

    def __init__(self) -> None:
        self.reported = os.getpid()  # this process plays the stream server
        self.answers = self.lives = True
        self.asked = 0

    async def is_stream_server(self, pid: int) -> bool:
        if not self.answers:
            raise SessionLost("supervisord did not answer")
        return pid == self.reported

    def runs_stream_server(self, pid: int) -> bool:
        return pid == self.reported

    async def display_lives(self) -> bool:
        self.asked += 1
        return self.lives

    async def supervisord_lives(self) -> bool:
        return self.lives


class Server:
    """A stream server that is connected to the channel."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(path))

    def send(self, message: FromStreamServer) -> None:
        self.socket.send(encode(message))

    async def configured(self) -> State | None:
        """The state that it was configured with; None if it was refused."""
        return await asyncio.to_thread(self._configured)

    def _configured(self) -> State | None:
        received = receive_configuration(self.socket)
        if received is None:
            return None
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
def programs() -> FakePrograms:
    return FakePrograms()


@pytest.fixture
async def channel(
    tmp_path: Path, display: FakeDisplay, programs: FakePrograms
) -> AsyncIterator[StreamChannel]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = StreamChannel(
            path=tmp_path / "stream.sock",
            config=CONFIG,
            listener=listener,
            displays={Role.VIEW: display, Role.CONTROL: FakeDisplay()},
            emit=lambda name, **fields: None,
            programs=programs,
        )
        yield made
        made.close()


@pytest.fixture
async def server(channel: StreamChannel, tmp_path: Path) -> AsyncIterator[Server]:
    """A stream server that was started and configured."""
    channel.expect(os.getpid())
    made = Server(tmp_path / "stream.sock")
    assert await made.configured() is State.STARTING
    yield made
    made.socket.close()


async def turns(count: int = 20) -> None:
    """Let the event loop handle what has arrived on local sockets."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_viewer_acquires_and_releases_the_display(server, display) -> None:
    server.send(DisplayRequested(viewer=7, role=Role.VIEW))
    assert await server.receive(DisplayReady) == DisplayReady(viewer=7, up=True)
    assert display.viewers == {7}
    server.send(DisplayReleased(viewer=7, role=Role.VIEW))
    await turns()
    assert display.viewers == set()


async def test_the_end_of_a_stream_server_releases_its_viewers(server, display) -> None:
    server.send(DisplayRequested(viewer=7, role=Role.VIEW))
    await server.receive(DisplayReady)
    server.socket.close()
    await turns()
    assert display.viewers == set()


async def test_a_request_of_a_replaced_stream_server_acquires_nothing(
    channel, server, display, tmp_path
) -> None:
    """The session may read the request and expect the next server in one turn of its loop."""
    server.send(DisplayRequested(viewer=7, role=Role.VIEW))
    server.socket.close()
    channel.expect(os.getpid())
    second = Server(tmp_path / "stream.sock")
    assert await second.configured() is State.STARTING
    assert display.viewers == set()
    second.socket.close()


# -- what a viewer gets that has lost x11vnc


async def test_viewers_that_lost_x11vnc_get_a_restart_while_the_display_lives(server) -> None:
    for viewer in (7, 8):
        server.send(DisplayLost(viewer=viewer))
    restarting: list[int] = []
    while len(restarting) < 2:
        restarting += (await server.receive(DisplayRestarting)).viewers
    assert restarting == [7, 8]


async def test_viewers_that_lost_the_display_get_no_restart(server, programs) -> None:
    """They get the session's end."""
    programs.lives = False
    for viewer in range(20):
        server.send(DisplayLost(viewer=viewer))
    await turns(200)
    assert programs.asked
    programs.lives = True
    server.send(DisplayLost(viewer=20))
    assert await server.receive(DisplayRestarting) == DisplayRestarting(viewers=(20,))


async def test_each_question_is_asked_after_the_loss_it_is_about(server, programs) -> None:
    """An answer that was under way before does not count for a later viewer."""
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def display_lives() -> bool:
        lives = programs.lives
        asked.set()
        await may_answer.wait()
        return lives

    programs.display_lives = display_lives
    server.send(DisplayLost(viewer=7))
    await asked.wait()
    programs.lives = False
    server.send(DisplayLost(viewer=8))
    await turns()
    may_answer.set()
    assert await server.receive(DisplayRestarting) == DisplayRestarting(viewers=(7,))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await server.receive(DisplayRestarting)


async def test_a_terminated_server_is_followed_by_another_while_supervisord_runs(
    server, programs
) -> None:
    programs.lives = False
    server.send(Terminated())
    await turns()
    programs.lives = True
    server.send(Terminated())
    assert await server.receive(ServerRestarting) == ServerRestarting()


# -- who gets the key


class OtherProcess:
    """Another process of the same user: it connects, and answers every challenge.

    Args:
        path: where it connects.
        inherited: a connection that it inherits instead.
    """

    CODE = """
import socket, sys
from worker.stream.messages import receive_configuration
if sys.argv[2] == "-1":
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.connect(sys.argv[1])
else:
    channel = socket.socket(fileno=int(sys.argv[2]))
print("connected", flush=True)
refused = receive_configuration(channel) is None
print("refused" if refused else "CONFIGURED", flush=True)
"""

    def __init__(self, path: Path, inherited: int = -1) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(path), str(inherited)],
            pass_fds=[] if inherited < 0 else [inherited],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "connected\n"

    async def outcome(self) -> str:
        output, _ = await asyncio.to_thread(self.process.communicate, timeout=30)
        return output.strip()


def ended_process() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        return process.pid


@pytest.mark.parametrize("when", ["before the start", "after the start", "after the handover"])
async def test_another_process_gets_no_configuration(channel, tmp_path, when) -> None:
    """Whenever it connects; the stream server gets its configuration all the same."""
    path = tmp_path / "stream.sock"
    if when == "before the start":
        other = OtherProcess(path)
    channel.expect(os.getpid())
    if when == "after the start":
        other = OtherProcess(path)
    server = Server(path)
    assert await server.configured() is State.STARTING
    if when == "after the handover":
        other = OtherProcess(path)
        channel.expect(os.getpid())  # it is not refused before the next start
    assert await other.outcome() == "refused"
    server.socket.close()


async def test_server_that_connects_before_its_start_is_reported(channel, tmp_path) -> None:
    """It waits, also if the one before it has ended without its configuration."""
    channel.expect(ended_process())
    server = Server(tmp_path / "stream.sock")
    await turns()
    channel.expect(os.getpid())
    assert await server.configured() is State.STARTING
    server.socket.close()


async def test_the_configuration_is_handed_over_once_per_start(channel, tmp_path) -> None:
    """Also when the process that supervisord reports connects again."""
    path = tmp_path / "stream.sock"
    channel.expect(os.getpid())
    first, second = Server(path), Server(path)
    await turns()
    states = [await first.configured(), await second.configured()]
    assert states == [State.STARTING, None]
    first.socket.close()
    second.socket.close()


async def test_a_connection_that_was_made_with_a_reused_process_id_gets_nothing(
    channel, tmp_path
) -> None:
    """The kernel remembers who has connected; the answer must come from that process too.

    Here the connection's process is the expected one, and another one holds the connection.
    """
    path = tmp_path / "stream.sock"
    server = Server(path)
    heir = OtherProcess(path, server.socket.fileno())
    server.socket.close()
    channel.expect(os.getpid())
    assert await heir.outcome() == "refused"


@pytest.mark.parametrize("how", ["another is reported", "it has ended", "no answer"])
async def test_a_process_that_supervisord_does_not_report_gets_nothing(
    channel, programs, tmp_path, how
) -> None:
    if how == "another is reported":
        programs.reported = 1
    elif how == "it has ended":
        programs.runs_stream_server = lambda pid: False
    else:
        programs.answers = False
    channel.expect(os.getpid())
    server = Server(tmp_path / "stream.sock")
    assert await server.configured() is None
    server.socket.close()


async def test_connections_that_wait_for_a_start_are_bounded(channel, tmp_path) -> None:
    servers = []
    for _ in range(40):
        servers.append(Server(tmp_path / "stream.sock"))
        await turns()
    assert len(channel._handover._waiting) <= 16
    channel.expect(os.getpid())
    assert await servers[0].configured() is State.STARTING
    for server in servers:
        server.socket.close()
