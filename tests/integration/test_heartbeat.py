"""Pings keep a stream open, and a viewer that does not answer them is disconnected."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from websocket_client import WebSocket
from worker_run import eventually

from worker.close_codes import Close
from worker.rfb.client_filter import ClientFilter
from worker.stream.viewer import Viewer
from worker.stream.websocket import ViewerSocket


class Streamed:
    """A viewer's thread between two socket pairs: the peer's WebSocket and an idle x11vnc."""

    def __init__(self, **limits):
        self.closed = None
        ours, theirs = socket.socketpair()
        server, self.x11vnc = socket.socketpair()
        server.setblocking(False)
        ours.setblocking(False)
        self.peer = WebSocket(theirs)
        self.viewer = Viewer(
            ViewerSocket(ours), server, ClientFilter(control=False, screen_px=(64, 32)), **limits
        )
        self._ours = ours
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        self.closed = self.viewer.run()
        self._ours.close()

    def end(self):
        """End the stream and close both peers' connections."""
        self.viewer.end(Close(code=1000, reason="task success"))
        self._thread.join()
        self.peer.abort()
        self.x11vnc.close()


@pytest.fixture
def stream():
    """Start viewers."""
    started = []

    def start(**limits):
        started.append(Streamed(**limits))
        return started[-1]

    yield start
    for each in started:
        each.end()


def read(peer):
    """Read, which also answers pings; return how many pings there were so far."""
    with contextlib.suppress(TimeoutError):
        peer.read_some(memoryview(bytearray(100)), time.monotonic() + 0.01)
    return peer.pings


def test_viewer_that_answers_pings_stays_connected(stream):
    """It stays for longer than a silent viewer would."""
    streamed = stream(ping_s=0.05, silent_s=2)
    eventually(lambda: read(streamed.peer) >= 60)
    assert streamed.closed is None


def test_viewer_that_does_not_answer_pings_is_disconnected(stream):
    """It is disconnected although its TCP connection is open."""
    streamed = stream(ping_s=0.05, silent_s=0.5)
    eventually(lambda: streamed.closed is not None)
    assert streamed.closed == Close(code=1006, reason="silent")
