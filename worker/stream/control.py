"""The control channel: the session tells the stream server what to serve, and hears what happens.

A Unix SOCK_SEQPACKET socket in the session's private folder; one JSON object a packet. The
session listens; a stream server connects whenever supervisord has (re)started it, and gets its
configuration together with the listening TCP socket (SCM_RIGHTS), so that a restart loses neither
the port nor the connections that wait on it. No secret is in a file or an environment.

    session → server   configure {…} + descriptor | state {state} | display {up, pid}
                       | control {up} | end {code, reason} | quit
                       | facts {stages_ms, restarts, pids}
    server → session   listening | token.used {jti, expires_at} | viewers.gone | event {name, …}
                       | control.wanted | control.left | facts.wanted
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PACKET_MAX_BYTES: Final = 65536
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


def configure(config: StreamConfig, state: State, used: Sequence[tuple[str, int]]) -> bytes:
    """The first packet to a stream server.

    Args:
        config: what it serves.
        state: what the task is doing now.
        used: the `jti` and expiry of each token that was used with an earlier stream server.
    """
    return pack("configure", config=asdict(config), state=str(state), used=list(used))


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
