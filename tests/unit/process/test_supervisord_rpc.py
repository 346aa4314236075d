"""One call to supervisord: its end when there is no answer."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from worker.process.supervisord_config import Config
from worker.process.supervisord_rpc import Connection, call

METHOD = "supervisor.getState"
ENDED = (OSError, http.client.HTTPException)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A supervisord that answers nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.settimeout(10)
        made.bind(str(tmp_path / "supervisor.sock"))
        made.listen()
        yield made


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    return Connection(Config(tmp_path, "password", -1), os.getpid())


def test_a_call_that_waits_for_its_answer_ends_when_it_is_aborted(
    listener: socket.socket, connection: Connection
) -> None:
    with ThreadPoolExecutor(1) as threads:
        calling = threads.submit(call, connection, METHOD, ())
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(1)
            connection.abort()
            assert isinstance(calling.exception(10), ENDED)


def test_a_call_that_was_aborted_before_it_began_sends_nothing(
    listener: socket.socket, connection: Connection
) -> None:
    connection.abort()
    with pytest.raises(ENDED):
        call(connection, METHOD, ())
    accepted, _ = listener.accept()
    with accepted:
        assert accepted.recv(1) == b""


def test_another_process_gets_no_password(listener: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        call(Connection(Config(tmp_path, "password", -1), os.getppid()), METHOD, ())
    accepted, _ = listener.accept()
    with accepted:
        assert accepted.recv(1) == b""
