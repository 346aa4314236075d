"""The API on a real port of this process, over a fake runner."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from fakes import FakeRunner

from worker.api import accounts, app
from worker.api.accounts import Accounts
from worker.api.dependencies import Services
from worker.api.endpoints import Endpoints
from worker.api.port.connection import Connection
from worker.api.port.port import Port, PortLimits
from worker.api.port.transport import tune
from worker.stream import tokens
from worker.trusted_proxies import TrustedProxies

_START_S = 20
PATIENCE_S = 20.0


class ApiServer:
    """A server in a thread.

    Attributes:
        key: alice's.
        refused: the statuses of the requests that the port has refused.
    """

    def __init__(self, folder: Path, limits: PortLimits, proxies: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.key = accounts.create(folder / "keys.json", "alice", control=False)
        self.refused: list[HTTPStatus] = []
        self._limits, self._proxies = limits, proxies
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        tune(self._listener)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._started = threading.Event()
        self._server: Any = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        if not self._started.wait(_START_S):
            raise TimeoutError("the API does not listen")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        services = Services(
            runner=FakeRunner(),
            accounts=Accounts(self.folder / "keys.json"),
            endpoints=Endpoints(self.folder),
            stream_key=lambda task_id: tokens.derive_key(b"m" * 32, task_id),
        )
        port = Port(
            services.accounts,
            TrustedProxies(self._proxies),
            count_refused=self.refused.append,
            report_refused=lambda *_: None,
            limits=self._limits,
        )
        config = uvicorn.Config(
            app.make(services),
            http=partial(Connection, port),  # type: ignore[arg-type]  # as in worker.api.serve
            ws="none",
            proxy_headers=False,
            lifespan="off",
            log_config=None,
            timeout_keep_alive=1,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        asyncio.get_running_loop().call_soon(self._started.set)
        await self._server.serve([self._listener])

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    # -- raw requests

    @contextlib.contextmanager
    def connected(self, data: bytes = b"", source: str = "127.0.0.1") -> Iterator[socket.socket]:
        """A connection from an address, on which `data` was sent."""
        with socket.create_connection(self.address, PATIENCE_S, (source, 0)) as connection:
            connection.sendall(data)
            yield connection

    def answer(self, data: bytes) -> bytes:
        """Send this, and read until the server closes."""
        with self.connected(data) as connection:
            return read_all(connection)

    def request(self, line: str, *headers: str, body: bytes = b"", key: bool = True) -> bytes:
        """The bytes of a request, after which the connection is closed."""
        lines = [f"{line} HTTP/1.1", "Host: api", "Connection: close", *headers]
        if key:
            lines.append(f"x-api-key: {self.key}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            said += data
    return said


def status_of(answer: bytes) -> int:
    """The status of an HTTP answer; 0 if there is none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
