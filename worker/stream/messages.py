"""The control channel: the session tells the stream server what to serve, and hears what happens.

A Unix SOCK_SEQPACKET socket in the session's private folder; one JSON object a packet. The
session listens; a stream server connects whenever supervisord has (re)started it, and gets its
configuration together with the listening TCP socket (SCM_RIGHTS), so that a restart loses neither
the port nor the connections that wait on it. No secret is in a file or an environment.

    session → server   configure + two descriptors | state {state} | display {up, pid}
                       | display.blind
                       | control {up} | end {code, reason} | quit
                       | facts {stages_ms, restarts, pids}
    server → session   listening | token.used {jti, expires_at} | viewers.gone | event {name, …}
                       | control.wanted | control.left | facts.wanted
"""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PACKET_MAX_BYTES: Final = 65536
_CONFIGURE: Final = b"configure"
_DESCRIPTORS: Final = 2
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))


class State(StrEnum):
    """What the stream server tells those who want to connect."""

    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """All that the stream server needs to know."""

    task_id: str
    target: str
    started_at: str
    key_hex: str
    x11vnc_socket: str
    x11vnc_control_socket: str
    max_viewers: int
    novnc_dir: str | None  # None: no debug page
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()


def pack(kind: str, **fields: Any) -> bytes:
    """One packet."""
    return json.dumps({"kind": kind, **fields}, separators=(",", ":")).encode()


def unpack(packet: bytes) -> dict[str, Any]:
    """The fields of one packet."""
    fields: dict[str, Any] = json.loads(packet)
    return fields


def configure(
    channel: socket.socket,
    listener: socket.socket,
    config: StreamConfig,
    state: State,
    used: Sequence[tuple[str, int]],
) -> None:
    """Send a stream server its first packet.

    What it says is in memory that is handed over with the listener: thousands of used tokens do
    not fit in a packet.

    Args:
        channel: the session's end.
        listener: the TCP socket that viewers connect to.
        config: what it serves.
        state: what the task is doing now.
        used: the `jti` and expiry of each token that was used with an earlier stream server.

    Raises:
        OSError: it is gone.
    """
    packet = pack("configure", config=asdict(config), state=str(state), used=list(used))
    with open(os.memfd_create("configure"), "w+b") as memory:  # noqa: PTH123 - a descriptor
        memory.write(packet)
        memory.flush()
        socket.send_fds(channel, [_CONFIGURE], [listener.fileno(), memory.fileno()])


def configured(channel: socket.socket) -> tuple[socket.socket, dict[str, Any]] | None:
    """The listener and the fields of that packet; None when the session does not want this one."""
    packet, descriptors, _, _ = socket.recv_fds(channel, PACKET_MAX_BYTES, _DESCRIPTORS)
    if packet != _CONFIGURE or len(descriptors) != _DESCRIPTORS:
        return None
    listener, memory = descriptors
    with open(memory, "rb") as content:  # noqa: PTH123 - a descriptor
        content.seek(0)  # the offset is shared with who wrote it
        return socket.socket(fileno=listener), unpack(content.read())


def listen(path: Path) -> socket.socket:
    """The session's end, non-blocking."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    listener.bind(str(path))
    listener.listen()
    return listener


def connect(path: Path) -> socket.socket:
    """The stream server's end, blocking."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.connect(str(path))
    return channel


def peer_pid(channel: socket.socket) -> int:
    """The process at the other end (unix(7), SO_PEERCRED)."""
    raw = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(raw)[0]
    return pid
