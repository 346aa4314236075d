"""Every refusal leaves the token usable: a retry succeeds once the cause of the refusal is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stream_server import StreamServerProcess
from websocket_client import Refused, WebSocket, open_tcp, upgrade
from worker_run import eventually

from worker.stream.messages import DisplayChanged, State
from worker.stream.tokens import Role

ORIGIN = "https://dashboard.example"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., StreamServerProcess]]:
    servers: list[StreamServerProcess] = []

    def started(**options: object) -> StreamServerProcess:
        server = StreamServerProcess(tmp_path, **options)
        servers.append(server)
        return server

    yield started
    for server in servers:
        server.__exit__()


def connect(server: StreamServerProcess, token: str, **headers: str) -> WebSocket:
    tcp = open_tcp("127.0.0.1", server.port, timeout_s=10)
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return upgrade(tcp, server.url(token), headers=fields, timeout_s=20)
    except BaseException:
        tcp.close()
        raise


def refused(server: StreamServerProcess, token: str, **headers: str) -> int:
    """The status of the refusal; the token must not be used up by it."""
    used = len(server.used_tokens)
    with pytest.raises(Refused) as caught:
        connect(server, token, **headers)
    assert len(server.used_tokens) == used
    return caught.value.status


def admitted(server: StreamServerProcess, token: str, **headers: str) -> WebSocket:
    """Retry until the slot of a viewer that has left is free; then the token is used up."""
    used = len(server.used_tokens)

    def attempt() -> WebSocket | None:
        try:
            return connect(server, token, **headers)
        except Refused:
            return None

    websocket: WebSocket = eventually(attempt)
    eventually(lambda: len(server.used_tokens) == used + 1)
    assert refused(server, token, **headers) == 401
    return websocket


def test_a_token_that_was_refused_before_the_task_runs_is_usable_when_it_runs(start) -> None:
    server = start(state=State.STARTING)
    token = server.token()
    assert refused(server, token) == 409
    server.set_state(State.RUNNING)
    admitted(server, token).abort()


def test_a_token_that_another_origin_sent_is_usable_from_an_allowed_one(start) -> None:
    server = start(allowed_origins=(ORIGIN,))
    token = server.token()
    assert refused(server, token, Origin="https://other.example") == 403
    admitted(server, token, Origin=ORIGIN).abort()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Key": ""}, 400),
        ({"Sec_WebSocket_Key": "\xe9"}, 400),
    ],
)
def test_a_token_of_a_bad_handshake_is_usable_in_a_good_one(start, header, status) -> None:
    server = start()
    token = server.token()
    assert refused(server, token, **header) == status
    admitted(server, token).abort()


def test_a_token_that_exceeded_the_viewer_limit_is_usable_when_a_viewer_has_left(start) -> None:
    server = start(max_viewers=1)
    first = admitted(server, server.token())
    token = server.token()
    assert refused(server, token) == 503
    first.abort()
    admitted(server, token).abort()


def test_a_control_token_is_usable_when_the_other_controller_has_left(start) -> None:
    server = start()
    first = admitted(server, server.token(Role.CONTROL))
    token = server.token(Role.CONTROL)
    assert refused(server, token) == 409
    first.abort()
    admitted(server, token).abort()


@pytest.mark.parametrize("role", list(Role))
def test_a_token_is_usable_when_x11vnc_is_up_again(start, role) -> None:
    server = start()
    token = server.token(role)
    server.display_up = False
    assert refused(server, token) == 503
    server.display_up = True
    admitted(server, token).abort()


def test_a_viewer_does_not_wait_for_the_session_when_x11vnc_is_settled(start) -> None:
    server = start()
    server.send(DisplayChanged(up=True, settled=True))
    server.answers = False
    admitted(server, server.token()).abort()


@pytest.mark.parametrize("role", list(Role))
def test_a_token_is_usable_when_x11vnc_accepts_connections_again(start, role) -> None:
    """x11vnc may die between the session's answer and the connection to it."""
    server = start()
    token = server.token(role)
    server.close_display(role)
    assert refused(server, token) == 503
    server.open_display(role)
    admitted(server, token).abort()


def test_a_token_is_usable_at_once_when_the_refusal_has_arrived(start) -> None:
    """The slot and the token are free before the answer is sent."""
    server = start(max_viewers=1)
    token = server.token()
    for _ in range(20):
        server.close_display(Role.VIEW)
        assert refused(server, token) == 503
        server.open_display(Role.VIEW)
        other = server.token()
        connect(server, other).abort()
        eventually(lambda: not server.viewers)


def test_a_viewer_that_waits_for_x11vnc_gets_503_when_the_stream_server_is_stopped(start) -> None:
    server = start()
    server.answers = False
    stopping = threading.Thread(target=server.stop_when_a_viewer_waits)
    stopping.start()
    assert refused(server, server.token(Role.CONTROL)) == 503
    stopping.join()


def test_a_token_is_not_usable_twice_at_the_same_time(start) -> None:
    server = start()
    token = server.token()
    first = admitted(server, token)
    assert refused(server, token) == 401
    first.abort()
