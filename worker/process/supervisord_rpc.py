"""One XML-RPC call to supervisord over its Unix socket, blocking.

Each call has a connection of its own: one that has failed cannot be used again. The password is
sent only when supervisord itself listens at the other end: another process of the same user could
put its own socket in the place of supervisord's.
"""

from __future__ import annotations

import base64
import http.client
import socket
import xmlrpc.client
from typing import TYPE_CHECKING, Any

from worker.linux import peer_pid
from worker.process.supervisord_config import USER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.process.supervisord_config import Config


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, pid: int, timeout_s: float) -> None:
        super().__init__("supervisord", timeout=timeout_s)
        self._path, self._pid = path, pid

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
        if peer_pid(self.sock) != self._pid:
            raise PermissionError(f"another process listens on {self._path}")


class _Transport(xmlrpc.client.Transport):
    accept_gzip_encoding = False

    def __init__(self, connection: _Connection, password: str) -> None:
        credentials = base64.b64encode(f"{USER}:{password}".encode()).decode()
        super().__init__(headers=[("Authorization", f"Basic {credentials}")])
        self._only = connection

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        del host
        return self._only

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """One request: the base class sends it again when the connection is lost."""
        return self.single_request(*args, **kwargs)


def call(config: Config, pid: int, method: str, args: Sequence[Any], timeout_s: float) -> Any:
    """Call a method of supervisord.

    Args:
        config: supervisord's.
        pid: supervisord's process.
        method: for example `supervisor.getState`.
        args: its arguments.
        timeout_s: for each step of the connection.

    Raises:
        xmlrpc.client.Error, http.client.HTTPException, OSError: there is no answer, or a refusal.
    """
    connection = _Connection(f"{config.folder}/supervisor.sock", pid, timeout_s)
    transport = _Transport(connection, config.password)
    try:
        with xmlrpc.client.ServerProxy("http://supervisord", transport=transport) as server:
            return getattr(server, method)(*args)
    finally:
        connection.close()
