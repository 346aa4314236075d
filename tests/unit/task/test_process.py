"""The session's end of the connection to the process of a function."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import StartFailed
from worker.outcome import Outcome, Status, TaskError
from worker.task.log import TaskLog
from worker.task.messages import (
    LINE_MAX_BYTES,
    BrowserFailed,
    DisplayReady,
    Go,
    Quit,
    Raised,
    Ready,
    Returned,
    Started,
    ToTask,
)
from worker.task.process import FunctionTask
from worker.task.spec import StartedChild, TaskSpec
from worker.task.target import Command
from worker.wire import Decoder, encode

DECODER: Decoder[ToTask] = Decoder(ToTask)
ERROR = TaskError(type="LookupError", message="nothing there", traceback="Traceback …")


class FakeChild:
    """A process that has exited, and left its output in a pipe."""

    pid = 0
    running = False

    def __init__(self, exit_code: int, output: bytes) -> None:
        self.exit_code = exit_code
        reader, writer = os.pipe()
        os.write(writer, output)
        os.close(writer)
        self.stdout = os.fdopen(reader, "rb")

    async def wait(self):
        return self.exit_code

    async def stop(self, grace_s):
        del grace_s


class FakeChildren:
    """Takes over the one fake process."""

    def __init__(self, child: FakeChild) -> None:
        self.child = child

    def adopt(self, process):
        del process
        return self.child


@contextlib.asynccontextmanager
async def function_task(log, *, exit_code=0, output=b""):
    """A task, and the other end of its connection."""
    session_end, task_end = socket.socketpair()
    session_end.setblocking(False)
    task_end.setblocking(False)
    started = StartedChild(process=None, socket=session_end, unsent=b"")
    spec = TaskSpec(
        target=Command(argv=("unused",)), inputs={}, environ={}, launch_options={}, log=log
    )
    task = FunctionTask(spec, started, FakeChildren(FakeChild(exit_code, output)))
    await task.connect()
    with task_end:
        try:
            yield task, task_end
        finally:
            await task.stop()
            with contextlib.suppress(OSError):  # EPIPE, if the peer is closed
                await task._writer.wait_closed()


@pytest.fixture
def log(tmp_path):
    return tmp_path / "task.log"


def send(peer, *messages):
    peer.sendall(b"".join(encode(message) + b"\n" for message in messages))


def received(peer):
    return [DECODER.decode(line) for line in peer.recv(65536).splitlines()]


def assert_protocol_broken(ended, text=""):
    assert (ended.status, ended.exit_code) == (Status.FAILED, 1)
    assert ended.error.type == "TaskProtocolError"
    assert text in ended.error.message


async def test_a_task_that_returns(log):
    async with function_task(log) as (task, peer):
        send(peer, Ready(), Started(), Returned(output={"title": "Hello"}))
        await task.prepare(":7", "/cookie")
        await task.go()
        ended = await task.ended()
        await task.stop()
        assert received(peer) == [
            DisplayReady(display=":7", xauthority="/cookie"),
            Go(),
            Quit(),
        ]
    assert ended == Outcome(status=Status.SUCCESS, exit_code=0, output={"title": "Hello"})


async def test_a_task_that_raises(log):
    async with function_task(log) as (task, peer):
        send(peer, Raised(error=ERROR))
        ended = await task.ended()
    assert (ended.status, ended.exit_code, ended.error) == (Status.FAILED, 1, ERROR)


@pytest.mark.parametrize(
    ("exit_code", "error_type", "code"),
    [(0, "Exited", 1), (7, "Exited", 7), (-signal.SIGKILL, "Killed", 137)],
)
async def test_a_process_that_ends_without_a_result(log, exit_code, error_type, code):
    async with function_task(log, exit_code=exit_code) as (task, peer):
        peer.sendall(b'{"type": "Returned", "outp')  # cut short by the process's end
        peer.close()
        ended = await task.ended()
    assert (ended.status, ended.exit_code) == (Status.FAILED, code)
    assert ended.error.type == error_type


async def test_a_browser_that_cannot_be_launched(log):
    for step in (lambda task: task.prepare(":7", "/cookie"), lambda task: task.ended()):
        async with function_task(log) as (task, peer):
            send(peer, BrowserFailed(message="no display\ncall log"))
            peer.shutdown(socket.SHUT_WR)
            with pytest.raises(StartFailed, match=r"^chromium did not start: no display$"):
                await step(task)


async def test_a_process_that_ends_early_is_reported_with_its_last_output(log):
    async with function_task(log, exit_code=3, output=b"No module named x\n") as (task, peer):
        peer.close()
        with pytest.raises(StartFailed, match="it ended with 3; last output: No module named x"):
            await task.prepare(":7", "/cookie")
    assert log.read_text() == "No module named x\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"\xff\xfe\n",
        b"7\n",
        b'{"type": "Quit"}\n',
        b'{"type": "Started"}\n',
        b'{"kind": "result", "output": 1}\n',
        b'{"type": "Raised", "error": {"type": "E"}}\n',
        b'{"type": "Returned", "output": NaN}\n',
        b'{"type": "Returned", "output": 1e999}\n',
        b'{"type": "Returned", "output": ' + b"[" * 201 + b"]" * 201 + b"}\n",
        b'{"type": "Returned", "output": ' + b"[" * 100_000 + b"}\n",
        b'{"type": "Returned", "output": ' + b"9" * 5000 + b"}\n",
    ],
    ids=lambda data: data[:40].decode(errors="replace").strip(),
)
async def test_invalid_messages_make_the_task_fail(log, data):
    async with function_task(log) as (task, peer):
        peer.sendall(data)
        assert_protocol_broken(await task.ended())


async def test_a_line_without_an_end_makes_the_task_fail(log):
    async with function_task(log) as (task, peer):
        loop = asyncio.get_running_loop()
        sending = asyncio.ensure_future(loop.sock_sendall(peer, b" " * (LINE_MAX_BYTES + 131072)))
        ended = await task.ended()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert_protocol_broken(ended, f"longer than {LINE_MAX_BYTES} bytes")


async def test_a_protocol_broken_before_the_start_makes_the_task_fail(log):
    async with function_task(log) as (task, peer):
        send(peer, Started())
        await task.prepare(":7", "/cookie")
        await task.go()
        assert_protocol_broken(await task.ended(), "unexpected Started")


@settings(deadline=None)  # threads and an event loop a case
@given(st.binary(max_size=100))
def test_arbitrary_bytes_end_in_a_failed_task(data):
    async def feed():
        async with function_task(Path(os.devnull), exit_code=0) as (task, peer):
            peer.sendall(data)
            peer.close()
            return await task.ended()

    ended = asyncio.run(feed())
    assert (ended.status, ended.exit_code) == (Status.FAILED, 1)
    assert ended.error.type == ("TaskProtocolError" if b"\n" in data else "Exited")


async def test_output_is_copied_and_its_end_is_kept(log, capfdbinary):
    output = b"begin\n" + b"x" * 1000 + b"end\n"
    copied = TaskLog(FakeChild(0, output), log)
    await copied.wait_for_end()
    assert log.read_bytes() == output
    assert capfdbinary.readouterr().err == output
    assert copied.output_tail.endswith("xend")
    assert len(copied.output_tail) == 300
