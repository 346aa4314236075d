"""Hands the stream's key and listener to each stream server, and to no other process.

A task can connect to the socket in the session's folder too. A connection is passed on only if the
kernel states that the answer to a challenge was sent by the process that supervisord has started
as the stream server, and if that process still runs. Once per start.

A process id may be reused, but not before supervisord has reaped the process: what it reports after
the process was opened as a pidfd is the process that the pidfd stands for.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, Protocol

from worker.errors import SessionError
from worker.linux import peer_pid
from worker.stream.messages import receive_answer, send_challenge

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_WAITING_MAX: Final = 16
_NONE: Final = 0


class Programs(Protocol):
    """What supervisord has started."""

    async def is_stream_server(self, pid: int) -> bool:
        """Whether supervisord reports this process as the stream server.

        Raises:
            SessionLost: it does not answer.
        """

    def runs_stream_server(self, pid: int) -> bool:
        """Whether the stream server that was started last is this process, and has not ended."""


class StreamHandover:
    """The socket that stream servers connect to, and the connections that are being verified."""

    def __init__(
        self,
        path: Path,
        programs: Programs,
        on_verified: Callable[[socket.socket], None],
    ) -> None:
        """Listen for stream servers.

        Args:
            path: of the Unix socket.
            programs: what supervisord has started.
            on_verified: called with the connection of each stream server; non-blocking.
        """
        self._programs, self._on_verified = programs, on_verified
        self._expected = _NONE
        self._reported: asyncio.Future[bool] | None = None
        self._waiting: list[socket.socket] = []  # until supervisord has reported its start
        self._challenged: set[socket.socket] = set()
        self._verifying: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._socket = _listen(path)
        self._loop.add_reader(self._socket, self._accept)

    def expect(self, pid: int) -> None:
        """A stream server was started by supervisord as this process."""
        self._expected = pid
        if self._reported is not None:
            self._reported.cancel()
        # Asked now, while the stream server loads: it need not wait for the answer.
        self._reported = asyncio.ensure_future(self._is_reported(pid))
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            self._consider(connection)

    def close(self) -> None:
        """Listen no longer, and close what is not verified."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._reported is not None:
            self._reported.cancel()
        for task in self._verifying:
            task.cancel()
        for connection in self._waiting:
            connection.close()
        for connection in list(self._challenged):
            self._forget(connection).close()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        connection.setblocking(False)
        if not self._may_be_the_next(connection):
            self._consider(connection)
        elif len(self._waiting) < _WAITING_MAX:
            self._waiting.append(connection)
        else:
            connection.close()

    def _may_be_the_next(self, connection: socket.socket) -> bool:
        """Whether a stream server may have connected whose start is not reported yet.

        On a busy machine it connects before supervisord's answer to its start is read.
        """
        if self._expected == _NONE:
            return True
        if self._programs.runs_stream_server(self._expected):
            return False
        try:
            return peer_pid(connection) != self._expected
        except OSError:
            return False

    def _consider(self, connection: socket.socket) -> None:
        try:
            if peer_pid(connection) != self._expected:
                connection.close()
                return
            challenge = send_challenge(connection)
        except OSError:
            connection.close()
            return
        self._challenged.add(connection)
        self._loop.add_reader(connection, self._on_answer, connection, challenge)

    def _forget(self, connection: socket.socket) -> socket.socket:
        self._challenged.discard(connection)
        self._loop.remove_reader(connection)
        return connection

    def _on_answer(self, connection: socket.socket, challenge: bytes) -> None:
        self._forget(connection)
        try:
            pid, answer = receive_answer(connection)
        except OSError:
            pid, answer = _NONE, b""
        if pid == _NONE or pid != self._expected or answer != challenge:
            connection.close()
            return
        self._expected = _NONE
        verifying = asyncio.ensure_future(self._verify(connection, pid, self._reported))
        self._verifying.add(verifying)
        verifying.add_done_callback(self._verifying.discard)

    async def _is_reported(self, pid: int) -> bool:
        try:
            return await self._programs.is_stream_server(pid)
        except SessionError:
            return False  # the stream server ends, and is started again

    async def _verify(
        self, connection: socket.socket, pid: int, reported: asyncio.Future[bool] | None
    ) -> None:
        verified = False
        try:
            verified = reported is not None and await reported
        finally:
            if verified and self._programs.runs_stream_server(pid):
                self._on_verified(connection)
            else:
                connection.close()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    listener.bind(str(path))
    listener.listen()
    return listener
