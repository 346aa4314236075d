"""One XML-RPC call to supervisord over its Unix socket, blocking.

Each call has a connection of its own: one that has failed cannot be used again. The password is
sent only when supervisord itself listens at the other end: another process of the same user could
put its own socket in the place of supervisord's.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import xmlrpc.client
from typing import TYPE_CHECKING, Any, Final

from worker.linux import peer_pid
from worker.process.supervisord_config import USER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.process.supervisord_config import Config

_CONNECT_TIMEOUT_S: Final = 3.0  # a full backlog


class Connection(http.client.HTTPConnection):
    """A connection for one call, not yet connected.

    It waits for an answer without a limit: the caller has one, in another thread, and calls `abort`
    then.
    """

    def __init__(self, config: Config, pid: int) -> None:
        """Describe the connection.

        Args:
            config: supervisord's.
            pid: supervisord's process.
        """
        super().__init__("supervisord")
        self.password = config.password
        self._path, self._pid = f"{config.folder}/supervisor.sock", pid
        self._aborted = False

    def connect(self) -> None:
        """Connect; http.client calls this."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CONNECT_TIMEOUT_S)
        self.sock.connect(self._path)
        self.sock.settimeout(None)
        if peer_pid(self.sock) != self._pid:
            raise PermissionError(f"another process listens on {self._path}")
        if self._aborted:
            raise ConnectionAbortedError

    def abort(self) -> None:
        """End a call that another thread is waiting for; without effect on one that has ended."""
        self._aborted = True
        connected = self.sock
        if connected is not None:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)


class _Transport(xmlrpc.client.Transport):
    accept_gzip_encoding = False

    def __init__(self, connection: Connection) -> None:
        credentials = base64.b64encode(f"{USER}:{connection.password}".encode()).decode()
        super().__init__(headers=[("Authorization", f"Basic {credentials}")])
        self._only = connection

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        del host
        return self._only

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """One request: the base class sends it again when the connection is lost."""
        return self.single_request(*args, **kwargs)


def call(connection: Connection, method: str, args: Sequence[Any]) -> Any:
    """Call a method of supervisord.

    Args:
        connection: a new one.
        method: for example `supervisor.getState`.
        args: its arguments.

    Raises:
        xmlrpc.client.Error, http.client.HTTPException, OSError: there is no answer, or a refusal.
    """
    try:
        with xmlrpc.client.ServerProxy(
            "http://supervisord", transport=_Transport(connection)
        ) as server:
            return getattr(server, method)(*args)
    finally:
        connection.close()
