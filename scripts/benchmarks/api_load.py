"""Measures the API on the local runner: POST /inference and GET …/stream, 50 at a time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

POSTS = 200
STREAMS = 2000
AT_ONCE = 50
_TASK = "import time\n\n\ndef run():\n    time.sleep(600)\n"
_MS = 1000
_POLL_S = 0.1


def main() -> int:
    """Measure, and print a line for each kind of request."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as folder:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WORKER_")}
        environ |= {"WORKER_STATE_DIR": f"{folder}/state", "WORKER_API_PORT": "0"}
        environ |= {"WORKER_ENDPOINTS_DIR": folder, "WORKER_MAX_RUNNING": "1"}
        (Path(folder) / "sleep_forever.py").write_text(_TASK)
        worker = [sys.executable, "-m", "worker.cli"]
        key = subprocess.check_output([*worker, "api-key", "bench"], env=environ, text=True).strip()
        with subprocess.Popen([*worker, "serve"], env=environ, stdout=subprocess.PIPE) as api:
            try:
                port = next(
                    event["port"]
                    for event in map(json.loads, api.stdout or ())
                    if event["event"] == "api.started"
                )
                asyncio.run(_measure(port, key, psutil.Process(api.pid)))
            finally:
                api.send_signal(signal.SIGTERM)
    return 0


async def _measure(port: int, key: str, server: psutil.Process) -> None:
    running = json.loads((await _Client(port, key).ask(*_POST))[1])["task_id"]
    await _until_not(port, key, running, "queued")
    posted: list[str] = []

    async def post(each: _Client) -> int:
        status, body = await each.ask(*_POST)
        posted.append(json.loads(body)["task_id"])
        return status

    async def stream(each: _Client) -> int:
        return (await each.ask("GET", f"/tasks/{running}/stream"))[0]

    try:
        load = _Load(port=port, key=key, server=server)
        await load.run("POST /inference", POSTS, 202, post)
        await load.run("GET …/stream", STREAMS, 200, stream)
    finally:
        for task in (*posted, running):
            await _Client(port, key).ask("POST", f"/tasks/{task}/cancel")
        await _until_not(port, key, running, "running")


async def _until_not(port: int, key: str, task: str, status: str) -> None:
    client = _Client(port, key)
    now = status
    while now == status:
        await asyncio.sleep(_POLL_S)
        now = json.loads((await client.ask("GET", f"/tasks/{task}"))[1])["status"]
    client.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    port: int
    key: str
    server: psutil.Process

    async def run(
        self, name: str, count: int, wanted: int, ask: Callable[[_Client], Awaitable[int]]
    ) -> None:
        remaining = count
        took_ms: list[float] = []
        errors = 0

        async def caller() -> None:
            nonlocal errors, remaining
            client = _Client(self.port, self.key)
            while remaining:
                remaining -= 1
                began = time.perf_counter()
                status = await ask(client)
                took_ms.append((time.perf_counter() - began) * _MS)
                errors += status != wanted
            client.close()

        began, used = time.perf_counter(), self.server.cpu_times()
        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
        total_s, now = time.perf_counter() - began, self.server.cpu_times()
        cpu_ms = (now.user + now.system - used.user - used.system) * _MS / count
        cuts = statistics.quantiles(took_ms, n=100)
        print(
            f"{name:15} {count} at {AT_ONCE} at a time: {errors} errors, {count / total_s:.0f}/s, "
            f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, {cpu_ms:.2f} ms of CPU each"
        )


_POST = ("POST", "/inference", b'{"endpoint_name": "sleep_forever"}')


class _Client:
    """One keep-alive connection. A minimal client, since it competes with the API for the CPU."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._head = f"host: 127.0.0.1\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request; return the answer's status and body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        head = f"{method} /api/v1{path} HTTP/1.1\r\n{self._head}content-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length: ")[2].split(b"\r", 1)[0])
        return int(answer[9:12]), await reader.readexactly(length)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


if __name__ == "__main__":
    sys.exit(main())
