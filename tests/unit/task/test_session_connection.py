"""The task's process's end of the connection to the session."""

from __future__ import annotations

import os
import socket

import pytest

from worker.task.messages import DisplayReady, FromTask, Go, Quit, Ready, Started
from worker.task.session_connection import SessionConnection
from worker.wire import Decoder, encode

DECODER: Decoder[FromTask] = Decoder(FromTask)


@pytest.fixture
def ends():
    """The session's end, and the connection of the task's process."""
    session, task_end = socket.socketpair()
    session.settimeout(5)
    connection = SessionConnection(task_end.detach())
    with session:
        yield session, connection
    connection._lines.close()
    connection._socket.close()


def send(session, *messages):
    session.sendall(b"".join(encode(message) + b"\n" for message in messages))


def received(session):
    session.setblocking(False)
    return [DECODER.decode(line) for line in session.recv(65536).splitlines()]


def test_it_is_not_inherited_by_the_browser(ends):
    _, connection = ends
    assert not connection._socket.get_inheritable()


def test_the_display_is_set_in_the_environment_once(ends, monkeypatch):
    session, connection = ends
    monkeypatch.setenv("DISPLAY", "")
    monkeypatch.setenv("XAUTHORITY", "")
    send(session, DisplayReady(display=":7", xauthority="/cookie"))
    connection.wait_for_display()
    connection.wait_for_display()
    assert (os.environ["DISPLAY"], os.environ["XAUTHORITY"]) == (":7", "/cookie")


def test_ready_and_started_are_sent_once(ends):
    session, connection = ends
    send(session, Go())
    for _ in range(2):
        connection.wait_for_go()
        connection.report_started()
    assert received(session) == [Ready(), Started()]


def test_another_message_than_the_expected_one_ends_the_process(ends):
    session, connection = ends
    send(session, Quit())
    with pytest.raises(SystemExit):
        connection.receive(Go)


def test_the_end_of_the_connection_is_quit(ends):
    session, connection = ends
    session.close()
    assert connection.receive(Quit) == Quit()
    with pytest.raises(SystemExit):
        connection.receive(Go)


async def test_quit_is_noticed_while_the_event_loop_runs(ends):
    session, connection = ends
    assert not connection.quit_is_pending()
    send(session, Quit())
    await connection.wait_for_quit()
    assert connection.quit_is_pending()
    assert connection.receive(Quit) == Quit()
