"""Messages between the session and the stream server, and how the first one is handed over.

They travel over a Unix SOCK_SEQPACKET socket in the session's private folder, one message a packet
(`worker.wire`). The session listens; a stream server connects each time that supervisord has
started it, and receives `Configure` together with the listening TCP socket (SCM_RIGHTS). So a
restart loses neither the port nor the connections in its backlog, and no secret is in a file or an
environment.

The session first sends a challenge, and the kernel states the sender of the answer: a process that
has connected may have ended and left its end of the connection to another one.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from worker.close_codes import Close
from worker.linux import CREDENTIALS
from worker.stream.tokens import Role
from worker.wire import Decoder, encode

PACKET_MAX_BYTES: Final = 65536
_HANDOVER: Final = b"configure"
_DESCRIPTORS: Final = 2
_CHALLENGE_BYTES: Final = 32


class State(StrEnum):
    """The state of the task, as the stream reports it."""

    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """The configuration of a stream server; `novnc_dir` is None when there is no debug page."""

    task_id: str
    target: str
    started_at: str
    key_hex: str
    x11vnc_socket: str
    x11vnc_control_socket: str
    max_viewers: int
    novnc_dir: str | None
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()


# -- from the session to the stream server


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsed:
    """A token was used to connect; `expires_at` is in seconds since 1970. Sent both ways."""

    jti: str
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """The first message: what to serve, and the tokens used with earlier stream servers."""

    config: StreamConfig
    state: State
    used_tokens: tuple[TokenUsed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged:
    """The task's state has changed."""

    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayChanged:
    """The state of the viewers' x11vnc has changed.

    Attributes:
        up: whether it accepts connections.
        settled: whether a viewer may connect without waiting for `DisplayReady`.
    """

    up: bool
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayRestarting:
    """Answers `DisplayLost`: x11vnc will be started again for these viewers' slots."""

    viewers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRestarting:
    """Answers `Terminated`: another stream server will follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayReady:
    """Answers `DisplayRequested`: whether x11vnc accepts the viewer's connection now."""

    viewer: int
    up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What only the session can report in `/metrics`; sent whenever it changes.

    Attributes:
        stages_ms: when each stage of the task was over, since the worker's start.
        restarts: how often each program was restarted.
        pids: each running program's process id.
    """

    stages_ms: dict[str, int]
    restarts: dict[str, int]
    pids: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The task has ended: close every viewer with this code and reason."""

    close: Close


@dataclass(frozen=True, slots=True, kw_only=True)
class Quit:
    """The session is over: exit."""


FromSession = (
    StateChanged
    | DisplayChanged
    | DisplayRestarting
    | ServerRestarting
    | DisplayReady
    | Facts
    | End
    | Quit
)

# -- from the stream server to the session


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """The stream server accepts viewers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayRequested:
    """A viewer needs x11vnc until `DisplayReleased`; answered by `DisplayReady`."""

    viewer: int
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayReleased:
    """A viewer does not need x11vnc any more."""

    viewer: int
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayLost:
    """x11vnc has closed a viewer's connection.

    Answered by `DisplayRestarting`, or by `End` when the display is lost and not only x11vnc.
    """

    viewer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminated:
    """The stream server was requested to end (SIGTERM).

    Answered by `ServerRestarting`, or by `End` when supervisord ends too.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewersGone:
    """Every viewer was closed after `End`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event for the session's event log."""

    name: str
    fields: dict[str, Any]


FromStreamServer = (
    Listening
    | TokenUsed
    | DisplayRequested
    | DisplayReleased
    | DisplayLost
    | Terminated
    | ViewersGone
    | Event
)

FROM_SESSION: Final[Decoder[FromSession]] = Decoder(FromSession)
FROM_STREAM_SERVER: Final[Decoder[FromStreamServer]] = Decoder(FromStreamServer)
_CONFIGURE: Final[Decoder[Configure]] = Decoder(Configure)


# -- the handover


def send_challenge(channel: socket.socket) -> bytes:
    """Send a new challenge to a process that has connected; returns the answer to expect.

    Raises:
        OSError: it has ended.
    """
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    challenge = os.urandom(_CHALLENGE_BYTES)
    channel.send(challenge)
    return challenge


def receive_answer(channel: socket.socket) -> tuple[int, bytes]:
    """Receive the answer to a challenge; returns its sender's process id and the answer.

    Raises:
        OSError: it has not arrived, or the process has ended.
    """
    answer, ancillary, _, _ = channel.recvmsg(_CHALLENGE_BYTES, socket.CMSG_SPACE(CREDENTIALS.size))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return CREDENTIALS.unpack(data)[0], answer
    return 0, answer


def send_configuration(
    channel: socket.socket, listener: socket.socket, configure: Configure
) -> None:
    """Send a stream server its listener and its configuration.

    The configuration is in memory that is passed as a second descriptor: thousands of used tokens
    do not fit in a packet.

    Raises:
        OSError: the stream server has ended.
    """
    with open(os.memfd_create("configure"), "w+b") as memory:  # noqa: PTH123 - a descriptor
        memory.write(encode(configure))
        memory.flush()
        socket.send_fds(channel, [_HANDOVER], [listener.fileno(), memory.fileno()])


def receive_configuration(channel: socket.socket) -> tuple[socket.socket, Configure] | None:
    """Answer the challenge, and receive what `send_configuration` sent.

    None when the session refuses this process, or is ending.
    """
    try:
        packet, descriptors = _receive_packet(channel)
        if len(packet) == _CHALLENGE_BYTES:
            channel.send(packet)
            packet, descriptors = _receive_packet(channel)
    except OSError:
        return None
    if packet != _HANDOVER or len(descriptors) != _DESCRIPTORS:
        return None
    listener, memory = descriptors
    with open(memory, "rb") as content:  # noqa: PTH123 - a descriptor
        content.seek(0)  # the offset is shared with the writer
        return socket.socket(fileno=listener), _CONFIGURE.decode(content.read())


def _receive_packet(channel: socket.socket) -> tuple[bytes, list[int]]:
    packet, descriptors, _, _ = socket.recv_fds(channel, PACKET_MAX_BYTES, _DESCRIPTORS)
    return packet, list(descriptors)
