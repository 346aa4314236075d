"""The docker runner and an engine that misbehaves; tests/image has the real one."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import uuid
from collections.abc import Iterator

import pytest

from worker.api.runners.docker import runner as docker_runner
from worker.api.runners.protocol import RunnerUnavailable
from worker.errors import SettingError
from worker.settings import load
from worker.settings.docker import DockerSettings


class FakeEngine(http.server.ThreadingHTTPServer):
    """Has every image and network and no container; fails when it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.failures = 0  # so many of the next requests about containers get a 500
        self.images = 200
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Answer(http.server.BaseHTTPRequestHandler):
    server: FakeEngine

    def do_GET(self) -> None:
        self.close_connection = True
        status, body = 200, {}
        if self.path.endswith("/version"):
            body = {"ApiVersion": "1.41"}
        elif "/containers/json" in self.path:
            status, body = (200, []) if self.server.failures <= 0 else (500, {"message": "busy"})
            self.server.failures -= 1
        elif "/images/" in self.path:
            status, body = self.server.images, {"message": "No such image"}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def engine(monkeypatch) -> Iterator[FakeEngine]:
    made = FakeEngine()
    monkeypatch.setenv("DOCKER_HOST", made.url)
    yield made
    made.stop()


@pytest.fixture
def runner(engine):
    return docker_runner.make(load(DockerSettings, {}, environ={}), lambda _: b"k" * 32)


async def test_not_found(runner):
    """A task that no container is labelled with is none."""
    await runner.open()
    try:
        assert await runner.find("acme", str(uuid.uuid4())) is None
        assert await runner.list("acme", status=None, before=None, limit=10) == []
        assert await runner.stream_address(str(uuid.uuid4())) is None
        assert await runner.artifacts(str(uuid.uuid4())) == []
        await runner.cancel(str(uuid.uuid4()))
    finally:
        await runner.close()


async def test_engine_goes_away(engine, runner):
    """An engine that goes away later is named in one line, and the runner is not ready."""
    said, lost = [], asyncio.Event()
    runner._report = lambda event, **_: (said.append(event), lost.set())
    await runner.open()
    try:
        assert await runner.ready()
        engine.stop()
        with pytest.raises(RunnerUnavailable, match="does not answer"):
            await runner.find("acme", str(uuid.uuid4()))
        assert not await runner.ready()
        runner._queue.wake()
        async with asyncio.timeout(30):
            await lost.wait()
        assert said == ["runner.lost"]
    finally:
        await runner.close()


async def test_engine_says_500(engine, runner):
    """What the engine cannot do is told in its own words, and never as an error of ours."""
    await runner.open()
    try:
        engine.failures = 1000
        with pytest.raises(RunnerUnavailable, match="busy"):
            await runner.counts()
    finally:
        await runner.close()


async def test_image_missing(engine, runner):
    """An image that is not there is said before anything is served."""
    engine.images = 404
    with pytest.raises(SettingError, match="has no image 'worker'"):
        await runner.open()


async def test_no_engine(monkeypatch):
    """So is an engine that is not there."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    made = docker_runner.make(load(DockerSettings, {}, environ={}), lambda _: b"")
    with pytest.raises(SettingError, match=r"no Docker engine answers at tcp://127\.0\.0\.1:9"):
        await made.open()
