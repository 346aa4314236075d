"""The session's end of the connection to the process of a function."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import StartFailed
from worker.outcome import Outcome, Status, TaskError
from worker.task.log import TaskLog
from worker.task.messages import (
    ERROR_TEXT_MAX_CHARS,
    ERROR_TYPE_MAX_CHARS,
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
    """A process that exits when `exited` is set, and has left its output in a pipe."""

    pid = 0
    running = False

    def __init__(self, exit_code: int, output: bytes) -> None:
        self.exit_code = exit_code
        self.exited = asyncio.Event()
        reader, writer = os.pipe()
        os.write(writer, output)
        os.close(writer)
        self.stdout = os.fdopen(reader, "rb")

    async def wait(self):
        await self.exited.wait()
        return self.exit_code

    async def stop(self, grace_s):
        self.exited.set()


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
        target=Command(argv=("unused",)),
        inputs={},
        environ={},
        launch_options={},
        log=log,
        log_max_bytes=1 << 20,
    )
    task = FunctionTask(spec, started, FakeChildren(FakeChild(exit_code, output)))
    await task.connect()
    with task_end:
        try:
            yield task, task_end
        finally:
            exit_process(task)
            await task.stop()
            with contextlib.suppress(OSError):  # EPIPE, if the peer is closed
                await task._writer.wait_closed()


@pytest.fixture
def log(tmp_path):
    return tmp_path / "task.log"


def send(peer, *messages):
    peer.sendall(b"".join(encode(message) + b"\n" for message in messages))


def end(task, peer):
    """The process exits, which closes its connection."""
    peer.close()
    exit_process(task)


def exit_process(task: Any) -> None:
    """The process exits, and another one keeps its connection open."""
    task._child.exited.set()


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
        exit_process(task)
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
    [
        (0, "Exited", 1),
        (7, "Exited", 7),
        (70, "Exited", 1),  # the code of a lost session, which it is not
        (-signal.SIGKILL, "Killed", 137),
    ],
)
async def test_a_process_that_ends_without_a_result(log, exit_code, error_type, code):
    async with function_task(log, exit_code=exit_code) as (task, peer):
        peer.sendall(b'{"type": "Returned", "outp')  # cut short by the process's end
        end(task, peer)
        ended = await task.ended()
    assert (ended.status, ended.exit_code) == (Status.FAILED, code)
    assert ended.error.type == error_type


async def test_a_browser_that_cannot_be_launched_fails_the_session(log):
    async with function_task(log) as (task, peer):
        send(peer, BrowserFailed(message="no display\ncall log"))
        with pytest.raises(StartFailed, match=r"^chromium did not start: no display$"):
            await task.prepare(":7", "/cookie")


async def test_a_failed_browser_fails_the_task_once_its_code_is_loaded(log):
    async with function_task(log) as (task, peer):
        send(peer, Ready(), Started(), BrowserFailed(message="no display"))
        await task.prepare(":7", "/cookie")
        await task.go()
        ended = await task.ended()
    assert (ended.status, ended.exit_code, ended.lost) == (Status.FAILED, 1, False)
    assert (ended.error.type, ended.error.message) == ("BrowserFailed", "no display")


@pytest.mark.parametrize("data", [b"", b'{"type": "Returned", "outp'])
async def test_a_connection_that_another_process_keeps_open_ends_with_the_process(log, data):
    async with function_task(log) as (task, peer):
        peer.sendall(data)
        exit_process(task)
        ended = await task.ended()
    assert (ended.exit_code, ended.error.type) == (1, "Exited")


async def test_what_an_ended_process_has_sent_is_received(log):
    async with function_task(log) as (task, peer):
        send(peer, Returned(output="x" * 1000))
        exit_process(task)
        ended = await task.ended()
    assert ended.output == "x" * 1000


async def test_the_texts_of_an_error_are_cut(log):
    async with function_task(log) as (task, peer):
        huge = "\ud800" * (ERROR_TEXT_MAX_CHARS + 1)
        error = TaskError(type="E" * 1000, message=huge, traceback=huge)
        loop = asyncio.get_running_loop()
        sending = asyncio.ensure_future(
            loop.sock_sendall(peer, encode(Raised(error=error)) + b"\n")
        )
        ended = await task.ended()
        await sending
    sizes = [len(text) for text in (ended.error.type, ended.error.message, ended.error.traceback)]
    assert sizes == [ERROR_TYPE_MAX_CHARS, ERROR_TEXT_MAX_CHARS, ERROR_TEXT_MAX_CHARS]


async def test_a_process_that_ends_early_is_reported_with_its_last_output(log):
    async with function_task(log, exit_code=3, output=b"No module named x\n") as (task, peer):
        end(task, peer)
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
def test_arbitrary_bytes_end_in_a_failed_task(tmp_path_factory, data):
    log = tmp_path_factory.getbasetemp() / "arbitrary.log"

    async def feed():
        async with function_task(log, exit_code=0) as (task, peer):
            peer.sendall(data)
            end(task, peer)
            return await task.ended()

    ended = asyncio.run(feed())
    assert (ended.status, ended.exit_code) == (Status.FAILED, 1)
    assert ended.error.type == ("TaskProtocolError" if b"\n" in data else "Exited")


async def test_output_is_copied_and_its_end_is_kept(log, capfdbinary):
    output = b"begin\n" + b"x" * 1000 + b"end\n"
    copied = TaskLog(FakeChild(0, output), log, len(output))
    await copied.wait_for_end()
    assert log.read_bytes() == output
    assert capfdbinary.readouterr().err == output
    assert copied.output_tail.endswith("xend")
    assert len(copied.output_tail) == 300


@pytest.mark.parametrize("limit", [1, 999, 1000, 50_000])
async def test_output_beyond_the_limit_is_not_recorded(log, capfdbinary, limit):
    """The log and stderr end with a line that states the limit; the output is read to its end."""
    output = b"x" * 60_000 + b"end"  # less than a pipe takes
    copied = TaskLog(FakeChild(0, output), log, limit)
    await copied.wait_for_end()
    recorded, _, note = log.read_bytes().partition(b"\n")
    assert recorded == output[:limit]
    assert note.startswith(b"worker: the output exceeds %d bytes" % limit)
    assert capfdbinary.readouterr().err == log.read_bytes()
    assert copied.output_tail.endswith("xend")


async def test_output_is_copied_without_a_log(tmp_path, capfdbinary):
    """Without a log file, the output is still copied to stderr."""
    copied = TaskLog(FakeChild(0, b"output"), tmp_path / "missing" / "task.log", 1000)
    await copied.wait_for_end()
    assert capfdbinary.readouterr().err == b"output"
