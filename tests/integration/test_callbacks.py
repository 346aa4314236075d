"""Callbacks: signed, repeated after failures, and pending until delivered or failed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import pytest
from fakes import FakeRunner

from worker.api.callbacks.sender import SLOTS_PER_ACCOUNT, Sender, signed_headers
from worker.api.runners.protocol import RunnerUnavailable, TaskRecord, TaskRequest, TaskStatus

TASK = "11111111-2222-4333-8444-555555555555"
NOW = datetime(2026, 5, 4, tzinfo=UTC)
PATIENCE_S = 20


class Receiver:
    """An HTTP server on loopback that answers with the given statuses."""

    def __init__(self, *statuses: int, location: str = "") -> None:
        self.statuses = list(statuses)
        self.location = location
        self.hangs = False
        self.connections = 0
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Receiver]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/done?x=1"
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.hangs:
            await reader.read()
            writer.close()
            return
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((head[0], headers, body))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        where = f"location: {self.location}\r\n" if self.location else ""
        phrase = HTTPStatus(status).phrase
        writer.write(f"HTTP/1.1 {status} {phrase}\r\n{where}content-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()


class Reports:
    """The reported events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []
        self._changed = asyncio.Event()

    def __call__(self, event: str, **fields: object) -> None:
        self.events.append((event, fields))
        self._changed.set()

    async def of(self, task_id: str) -> str:
        """The name of the first event about a task."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event, fields in self.events:
                    if fields.get("task_id") == task_id:
                        return event
                self._changed.clear()
                await self._changed.wait()

    async def first(self) -> tuple[str, dict[str, object]]:
        async with asyncio.timeout(PATIENCE_S):
            await self._changed.wait()
        return self.events[0]


@pytest.fixture
async def runner() -> FakeRunner:
    return FakeRunner()


async def end_with_callback(
    runner: FakeRunner, url: str, *, task_id: str = TASK, account: str = "alice"
) -> None:
    """A task that has ended and has a callback."""
    request = TaskRequest(
        task_id=task_id,
        account=account,
        endpoint_name="tour",
        file=Path("tour.py"),
        inputs={},
        timeout_s=1,
        callback_url=url,
        digest="",
        created_at=NOW,
    )
    await runner.start(request)
    runner.set(task_id, TaskStatus.SUCCESS, finished_at=NOW, exit_code=0, output=b'{"n": 1}')


@contextlib.asynccontextmanager
async def sending(
    runner: FakeRunner, *, private: bool = True, delays_s: tuple[float, ...] = (0.0, 0.0, 0.0)
) -> AsyncIterator[Reports]:
    reports = Reports()
    sender = Sender(
        runner=runner,
        secret_of=lambda account: f"secret of {account}",
        report=reports,
        private=private,
        poll_s=0.01,
        delays_s=delays_s,
    )
    running = asyncio.ensure_future(sender.run())
    try:
        yield reports
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_ended_task_is_posted_and_signed(runner):
    async with Receiver(200).serving() as receiver, sending(runner) as reports:
        await end_with_callback(runner, receiver.url)
        assert await reports.first() == ("callback.delivered", {"task_id": TASK, "tries": 1})
    [(line, headers, body)] = receiver.requests
    assert line == "POST /done?x=1 HTTP/1.1"
    assert headers["content-type"] == "application/json"
    sent = json.loads(body)
    assert (sent["task_id"], sent["status"], sent["output"]) == (TASK, "success", {"n": 1})
    text = headers["x-worker-timestamp"].encode() + b"." + body
    expected = hmac.new(b"secret of alice", text, hashlib.sha256).hexdigest()
    assert headers["x-worker-signature"] == f"sha256={expected}"
    assert runner.notified == [TASK]


def test_signature_covers_time_and_body():
    assert signed_headers("s", b"{}", 5)["x-worker-signature"] == (
        "sha256=" + hmac.new(b"s", b"5.{}", hashlib.sha256).hexdigest()
    )


async def test_failed_attempts_are_repeated(runner):
    async with Receiver(500, 503, 204).serving() as receiver, sending(runner) as reports:
        await end_with_callback(runner, receiver.url)
        assert await reports.first() == ("callback.delivered", {"task_id": TASK, "tries": 3})


async def test_callback_fails_after_the_last_attempt(runner):
    async with Receiver(500).serving() as receiver, sending(runner) as reports:
        await end_with_callback(runner, receiver.url)
        failed = ("callback.failed", {"task_id": TASK, "tries": 4, "why": "HTTP 500"})
        assert await reports.first() == failed
    assert runner.notified == [TASK]


async def test_status_410_is_not_repeated(runner):
    async with Receiver(410).serving() as receiver, sending(runner) as reports:
        await end_with_callback(runner, receiver.url)
        assert (await reports.first())[1]["tries"] == 1


async def test_receiver_does_not_answer(runner):
    async with Receiver(200).serving() as receiver:
        pass
    async with sending(runner) as reports:
        await end_with_callback(runner, receiver.url)
        event, fields = await reports.first()
    assert (event, fields["tries"]) == ("callback.failed", 4)


async def test_loopback_address_is_refused(runner):
    async with Receiver(200).serving() as receiver, sending(runner, private=False) as reports:
        await end_with_callback(runner, receiver.url)
        event, fields = await reports.first()
    assert (event, fields["tries"]) == ("callback.failed", 1)
    assert "which is not public" in str(fields["why"])
    assert receiver.requests == []


async def test_name_of_a_loopback_address_is_refused(runner):
    async with Receiver(200).serving() as receiver, sending(runner, private=False) as reports:
        await end_with_callback(runner, receiver.url.replace("127.0.0.1", "localhost"))
        event, _ = await reports.first()
    assert event == "callback.failed"
    assert receiver.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(runner, status):
    async with (
        Receiver(200).serving() as inner,
        Receiver(status, location=inner.url).serving() as receiver,
        sending(runner) as reports,
    ):
        await end_with_callback(runner, receiver.url)
        event, fields = await reports.first()
    assert (event, fields["why"]) == ("callback.failed", f"HTTP {status}")
    assert inner.requests == []


# -- callbacks of several accounts


@contextlib.asynccontextmanager
async def many_of_alice(runner: FakeRunner, receiver: Receiver) -> AsyncIterator[Reports]:
    """Callbacks of one account that cannot be delivered, more than there are slots."""
    for number in range(50):
        await end_with_callback(runner, receiver.url, task_id=f"alice-{number}")
    async with sending(runner, delays_s=(1000.0,)) as reports:
        async with asyncio.timeout(PATIENCE_S):
            while receiver.connections < SLOTS_PER_ACCOUNT:
                await asyncio.sleep(0.01)
        yield reports


@pytest.mark.parametrize("hangs", [True, False], ids=["hang", "fail"])
async def test_undeliverable_callbacks_do_not_delay_those_of_another_account(runner, hangs):
    """Neither while their receiver does not answer, nor while they wait for further attempts."""
    async with Receiver(500).serving() as broken, Receiver(200).serving() as works:
        broken.hangs = hangs
        async with many_of_alice(runner, broken) as reports:
            for number in range(10):
                task_id = f"bob-{number}"
                await end_with_callback(runner, works.url, task_id=task_id, account="bob")
                assert await reports.of(task_id) == "callback.delivered"
            assert broken.connections == (SLOTS_PER_ACCOUNT if hangs else 50)
            assert {event for event, _ in reports.events} == {"callback.delivered"}


async def test_error_of_one_callback(runner):
    """A callback whose body cannot be made fails, and does not affect others."""
    async with Receiver(200).serving() as receiver, sending(runner) as reports:
        await end_with_callback(runner, receiver.url, task_id="odd")
        runner.set("odd", TaskStatus.FAILED, error={"type": 5, "message": {}})
        await end_with_callback(runner, receiver.url)
        assert await reports.of(TASK) == "callback.delivered"
        assert await reports.of("odd") == "callback.failed"
    assert sorted(runner.notified) == [TASK, "odd"]


async def test_result_that_cannot_be_recorded(runner):
    """The runner is unavailable after the delivery: recording it is repeated, the POST is not."""

    class Unavailable(FakeRunner):
        failures = 1

        async def finish_callback(self, task: TaskRecord) -> None:
            if self.failures:
                self.failures -= 1
                raise RunnerUnavailable("disk full")
            await super().finish_callback(task)

    runner = Unavailable()
    async with Receiver(200).serving() as receiver, sending(runner) as reports:
        await end_with_callback(runner, receiver.url)
        async with asyncio.timeout(PATIENCE_S):
            while not runner.notified:
                await asyncio.sleep(0.01)
    assert [event for event, _ in reports.events] == ["callback.unsettled", "callback.delivered"]
    assert len(receiver.requests) == 1


async def test_failing_leases_are_repeated(runner):
    """An error of the runner stops no delivery for good."""

    class Odd(FakeRunner):
        failures = 2

        async def lease_callbacks(self) -> Sequence[TaskRecord]:
            if self.failures:
                self.failures -= 1
                raise KeyError("odd")
            return await super().lease_callbacks()

    runner = Odd()
    async with Receiver(200).serving() as receiver, sending(runner) as reports:
        await end_with_callback(runner, receiver.url)
        assert await reports.of(TASK) == "callback.delivered"
    assert [event for event, _ in reports.events] == [
        *("loop.failed", "loop.recovered", "callback.delivered")
    ]
