"""Delivers a case to the server: cut into pieces, with pauses, and with one of four ends."""

from __future__ import annotations

import contextlib
import itertools
import random
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from fuzzing.case import PLACEHOLDERS
from fuzzing.mutations import frame_starts
from worker.stream.tokens import Role

if TYPE_CHECKING:
    from fuzzing.case import Case
    from fuzzing.server_process import ServerProcess

SEND_TIMEOUT_S: Final = 2.0
_CONNECT_TIMEOUT_S: Final = 5.0
_REAL_DISPLAY_SLOWER: Final = 5
_STEPS: Final = 3  # of the handshake
_ANSWER_S: Final = 1.0
_UPDATE_S: Final = (0.3, 0.3, 0.6)  # for the last update of a real x11vnc
_RECEIVE_BYTES: Final = 65536


def deliver(case: Case, server: ServerProcess) -> None:
    """Send a case; its `delivery` determines the cuts, the pauses and the end.

    With a real x11vnc the frames of the handshake are sent one by one, each after an answer to the
    one before, since x11vnc does not answer a viewer that does not wait; and it gets more time.
    """
    slower = 1 if server.real_display is None else _REAL_DISPLAY_SLOWER
    rng = random.Random(case.delivery)  # noqa: S311
    data = case.data
    for placeholder, role in zip(PLACEHOLDERS, (Role.VIEW, Role.CONTROL), strict=True):
        data = data.replace(placeholder, server.token(role).encode())
    cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.choice((0, 0, 1, 2, 8))))
    steps = frame_starts(data)[: _STEPS + 1] if server.real_display is not None else []
    bounds = [0, *steps, *(cut for cut in cuts if not steps or cut > steps[-1]), len(data)]
    with contextlib.suppress(OSError):
        address = ("127.0.0.1", server.port)
        with socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(SEND_TIMEOUT_S)
            for start, end in itertools.pairwise(bounds):
                connection.sendall(data[start:end])
                if end in steps:
                    select.select([connection], [], [], _ANSWER_S)
                    _read(connection, 0)
                if rng.random() < 0.7:  # noqa: PLR2004
                    _read(connection, rng.choice((0.0, 0.005, 0.02)) * slower)
            if server.real_display is not None:
                _read(connection, rng.choice(_UPDATE_S))
            _end(connection, rng, slower)


def _end(connection: socket.socket, rng: random.Random, slower: float) -> None:
    match rng.choice(("close", "reset", "half", "read")):
        case "reset":
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        case "half":
            connection.shutdown(socket.SHUT_WR)
            _read(connection, 0.2)
        case "read":
            _read(connection, 0.05 * slower)


def _read(connection: socket.socket, seconds: float) -> None:
    """Read and discard data for some seconds, or until the connection ends."""
    deadline = time.monotonic() + seconds
    while True:
        remaining_s = max(0.0, deadline - time.monotonic())
        if not select.select([connection], [], [], remaining_s)[0]:
            return
        if not connection.recv(_RECEIVE_BYTES):
            return
