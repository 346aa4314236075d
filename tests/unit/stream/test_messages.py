"""The messages between session and stream server."""

from __future__ import annotations

import socket

from worker.stream import messages
from worker.stream.messages import Configure, State, StreamConfig, TokenUsed

CONFIG = StreamConfig(
    task_id="a-task",
    target="task.py:run",
    started_at="2026-01-01T00:00:00.000Z",
    key_hex="00" * 32,
    x11vnc_socket="/view.sock",
    x11vnc_control_socket="/control.sock",
    max_viewers=16,
    novnc_dir=None,
    trusted_proxies=("10.0.0.0/8",),
)


def test_a_configuration_with_thousands_of_used_tokens_arrives_with_the_listener() -> None:
    used = tuple(TokenUsed(jti=f"{n:064}", expires_at=2_000_000_000) for n in range(20_000))
    configure = Configure(config=CONFIG, state=State.RUNNING, used_tokens=used)
    session, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with session, server, socket.create_server(("127.0.0.1", 0)) as listener:
        messages.send_configuration(session, listener, configure)
        received = messages.receive_configuration(server)
        assert received is not None
        with received[0]:
            assert received[0].getsockname() == listener.getsockname()
        assert received[1] == configure


def test_a_session_that_has_ended_sends_no_configuration() -> None:
    session, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    session.close()
    with server:
        assert messages.receive_configuration(server) is None
