"""The control channel carries as much as there is to say."""

from __future__ import annotations

import socket

from worker.stream import messages
from worker.stream.messages import State, StreamConfig

CONFIG = StreamConfig(
    task_id="a-task",
    target="task.py:run",
    started_at="2026-01-01T00:00:00.000Z",
    key_hex="00" * 32,
    x11vnc_socket="/view.sock",
    x11vnc_control_socket="/control.sock",
    max_viewers=16,
    novnc_dir=None,
)


def test_thousands_of_used_tokens():
    """A stream server that is started anew hears of all used tokens, and gets the listener."""
    used = [(f"{number:064}", 2_000_000_000) for number in range(20_000)]
    session, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with session, server, socket.create_server(("127.0.0.1", 0)) as listener:
        messages.configure(session, listener, CONFIG, State.RUNNING, used)
        configured = messages.configured(server)
        assert configured is not None
        received, message = configured
        with received:
            assert received.getsockname() == listener.getsockname()
    assert message["used"] == [list(each) for each in used]
    assert message["config"]["task_id"] == "a-task"


def test_a_session_that_is_gone():
    """A stream server that nobody configures is told so by the end of the channel."""
    session, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    session.close()
    with server:
        assert messages.configured(server) is None
