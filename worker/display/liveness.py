"""Whether an X server is alive: it answers a new connection.

A process that ends closes its connections before its end can be observed, in any order. So a client
that has lost its connection cannot tell by the process whether the server is ending. An ending
server never answers a new connection: it is closed, refused, or, if another process has reserved
the display, waits until the process has ended.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from worker.linux import peer_pid
from worker.process.children import exited

TIMEOUT_S: Final = 2.0
# X11's connection setup, little-endian, version 11.0, without a cookie: the answer is a refusal.
_SETUP: Final = struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0)


def server_pid(display: str) -> int:
    """The process that listens as a display, for example `:7`.

    Raises:
        OSError: there is none.
    """
    with _socket() as connection:
        connection.connect(_address(display))
        return peer_pid(connection)


async def answers(display: str, pid: int) -> bool:
    """Whether the X server of a display still answers.

    One that answers nothing within TIMEOUT_S and is not gone was stopped, or is busy: it may go on.

    Args:
        display: for example `:7`.
        pid: its process, by `server_pid`: the display's number may be another server's by now.
    """
    loop = asyncio.get_running_loop()
    with _socket() as connection:
        try:
            connection.connect(_address(display))
            if peer_pid(connection) != pid:
                return False
            async with asyncio.timeout(TIMEOUT_S):
                await loop.sock_sendall(connection, _SETUP)
                return await _answered(connection, pid)
        except (TimeoutError, BlockingIOError):  # no answer, or a full backlog
            return True
        except OSError:
            return False


async def _answered(connection: socket.socket, pid: int) -> bool:
    """Whether an answer arrives before the connection is closed, or the process ends."""
    loop = asyncio.get_running_loop()
    answer = asyncio.ensure_future(loop.sock_recv(connection, 1))
    ended = asyncio.ensure_future(exited(pid))
    try:
        await asyncio.wait((answer, ended), return_when=asyncio.FIRST_COMPLETED)
        return answer.done() and bool(answer.result())
    finally:
        for each in (answer, ended):
            each.cancel()
        await asyncio.wait((answer, ended))


def _socket() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    return connection


def _address(display: str) -> str:
    return f"\0/tmp/.X11-unix/X{display.removeprefix(':')}"
