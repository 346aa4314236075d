"""A TCP port for VNC clients without WebSocket support; each connection uses a new stream URL."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

from websocket_client import Ended, WebSocket, open_tcp, upgrade

_TURN_S = 0.002
_BUFFER_BYTES = 65536
_CONNECT_S = 10


class TcpBridge:
    """Listens on loopback until the context ends."""

    def __init__(self, new_url: Callable[[], str]) -> None:
        self._new_url = new_url
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        url = self._new_url()
        parts = urlsplit(url)
        tcp = open_tcp(parts.hostname or "", parts.port or 80, timeout_s=_CONNECT_S)
        with (
            client,
            upgrade(tcp, url, timeout_s=_CONNECT_S) as websocket,
            contextlib.suppress(Ended, OSError),
        ):
            _pump(client, websocket)


def _pump(client: socket.socket, websocket: WebSocket) -> None:
    """Copy in both directions until one side ends."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    while True:
        if select.select([client], [], [], 0)[0]:
            data = client.recv(_BUFFER_BYTES)
            if not data:
                return
            websocket.send(data)
        with contextlib.suppress(TimeoutError):
            size = websocket.read_some(buffer, time.monotonic() + _TURN_S)
            client.sendall(buffer[:size])
