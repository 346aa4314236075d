"""A viewer's thread between two socket pairs: the viewer's WebSocket, and an idle x11vnc."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time

import pytest

from worker.close_codes import (
    DISPLAY_LOST,
    DISPLAY_RESTARTING,
    PROTOCOL_VIOLATION,
    VIEWER_TOO_SLOW,
    Close,
)
from worker.rfb.client_filter import ClientFilter
from worker.rfb.messages import PROTOCOL_VERSION
from worker.stream.limits.clock import PATIENCE_MAX
from worker.stream.limits.pace import MESSAGE_S
from worker.stream.limits.shares import Shares
from worker.stream.policy import SILENT_S, Limit
from worker.stream.viewer import Viewer
from worker.stream.websocket import ViewerSocket

TASK_ENDED = Close(code=1000, reason="task success")
INCREMENTAL = struct.pack(">BBHHHH", 3, 1, 0, 0, 8, 8)
UPDATE_REQUEST = struct.pack(">BBHHHH", 3, 0, 0, 0, 8, 8)
KEY_DOWN, KEY_UP = (struct.pack(">B?xxI", 4, down, 0xFFE1) for down in (True, False))


def frame(payload, opcode=0x2):
    """A client's frame of less than 126 bytes, masked with zeros."""
    return struct.pack(">BB4x", 0x80 | opcode, 0x80 | len(payload)) + payload


class Stream:
    """A running viewer, and its two peers."""

    def __init__(self, *, control=False, **options):
        ours, self.peer = socket.socketpair()
        server, self.x11vnc = socket.socketpair()
        for each in (ours, server):
            each.setblocking(False)
        self.peer.settimeout(10)
        self.x11vnc.settimeout(10)
        self.first_frames = 0
        self.result = None
        self._ours = ours
        rfb = ClientFilter(control=control, screen_px=(64, 32), one_frame=True)
        self.display_lost = threading.Event()
        self.viewer = Viewer(
            ViewerSocket(ours),
            server,
            rfb,
            self._on_first_frame,
            on_display_lost=self.display_lost.set,
            **options,
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _on_first_frame(self):
        self.first_frames += 1

    def _run(self):
        self.result = self.viewer.run()
        self._ours.close()

    def read_frame(self):
        """(opcode, payload) of the next frame that the viewer gets."""
        first, size = self._read(2)
        if size >= 126:
            size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
        return first & 0xF, self._read(size)

    def _read(self, size):
        data = b""
        while len(data) < size:
            piece = self.peer.recv(size - len(data))
            assert piece, "the connection ended"
            data += piece
        return data

    def greet(self):
        """Go through the handshake, from both sides."""
        self.x11vnc.sendall(PROTOCOL_VERSION + b"\x01\x01")
        assert self.read_frame() == (0x2, PROTOCOL_VERSION)
        self.peer.sendall(frame(PROTOCOL_VERSION))
        assert self.read_frame() == (0x2, b"\x01\x01")
        self.peer.sendall(frame(b"\x01") + frame(b"\x00"))
        self.expect(b"\x01\x01")

    def expect(self, data):
        """Assert that this is what x11vnc receives next."""
        received = b""
        while len(received) < len(data):
            received += self.x11vnc.recv(len(data) - len(received))
        assert received == data

    def closed(self):
        """Answer the Close frame; return it, and the result of `run`."""
        while (got := self.read_frame())[0] != 0x8:
            pass
        self.peer.sendall(frame(got[1], 0x8))
        self._thread.join(10)
        (code,) = struct.unpack_from(">H", got[1])
        return Close(code=code, reason=got[1][2:].decode()), self.result

    def join(self):
        self._thread.join(10)
        assert self.result is not None
        return self.result

    def stop(self):
        self.viewer.end(TASK_ENDED)
        self.peer.close()
        self.x11vnc.close()
        self._thread.join(10)


@pytest.fixture
def stream():
    """Start viewers."""
    started = []

    def start(**options):
        started.append(Stream(**options))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def test_bytes_are_forwarded_both_ways(stream):
    """The first framebuffer update after a request is reported once."""
    streamed = stream()
    streamed.greet()
    assert streamed.first_frames == 0
    streamed.peer.sendall(frame(UPDATE_REQUEST))
    streamed.expect(UPDATE_REQUEST)
    for update in (b"\x00first", b"\x00second"):
        streamed.x11vnc.sendall(update)
        assert streamed.read_frame() == (0x2, update)
    assert streamed.first_frames == 1
    assert streamed.viewer.sent_bytes > 20


def test_end_of_the_task_closes_with_its_outcome(stream):
    streamed = stream()
    streamed.greet()
    streamed.viewer.end(TASK_ENDED)
    streamed.viewer.end(PROTOCOL_VIOLATION)
    assert streamed.closed() == (TASK_ENDED, TASK_ENDED)


def test_last_update_is_sent_before_the_close(stream):
    """X11vnc is sent two requests for a pixel, and what it sends then reaches the viewer."""
    streamed = stream()
    streamed.greet()
    streamed.peer.sendall(frame(UPDATE_REQUEST))
    streamed.expect(UPDATE_REQUEST)
    streamed.x11vnc.sendall(b"\x00first")
    assert streamed.read_frame() == (0x2, b"\x00first")
    streamed.viewer.end(TASK_ENDED)
    pixel = struct.pack(">BBHHHH", 3, 0, 0, 0, 1, 1) + struct.pack(">BBHHHH", 3, 1, 0, 0, 8, 8)
    for update in (b"\x00pixel", b"\x00last"):
        streamed.expect(pixel)
        streamed.x11vnc.sendall(update)
        assert streamed.read_frame() == (0x2, update)
    assert streamed.closed() == (TASK_ENDED, TASK_ENDED)


class Connections:
    """Connections to x11vnc, which it closes at once, except the last one; `peer` is its end."""

    def __init__(self, count):
        self.left = count
        self.last = threading.Event()

    def __call__(self):
        self.left -= 1
        if self.left < 0:
            return None
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        if self.left:
            self.peer.close()
        else:
            self.peer.settimeout(10)
            self.last.set()
        return ours


def test_connection_that_x11vnc_closes_unused_is_replaced(stream):
    """What the viewer has sent in advance is not lost."""
    connections = Connections(3)
    streamed = stream(reconnect=connections)
    streamed.peer.sendall(frame(PROTOCOL_VERSION) + frame(b"\x01") + frame(b"\x00"))
    streamed.x11vnc.close()
    assert connections.last.wait(10)
    streamed.x11vnc = connections.peer
    streamed.x11vnc.sendall(PROTOCOL_VERSION)
    assert streamed.read_frame() == (0x2, PROTOCOL_VERSION)
    streamed.expect(b"\x01\x01")
    assert not streamed.display_lost.is_set()


@pytest.mark.parametrize("count", [0, 1000])
def test_x11vnc_that_accepts_no_connection_is_lost(stream, count):
    streamed = stream(reconnect=Connections(count))
    streamed.x11vnc.close()
    assert streamed.display_lost.wait(10)


@pytest.mark.parametrize("close", [DISPLAY_RESTARTING, DISPLAY_LOST])
def test_lost_x11vnc_is_reported_and_closes_with_the_sessions_reason(stream, close):
    streamed = stream()
    streamed.greet()
    streamed.x11vnc.close()
    assert streamed.display_lost.wait(10)
    streamed.viewer.end(close)
    assert streamed.closed() == (close, close)


@pytest.mark.parametrize("sent", [frame(b"\x07"), b"\x82\xff" + bytes([0xFF] * 12)])
def test_protocol_violation_closes_with_1008(stream, sent):
    """An unknown RFB message, and a frame that is too large."""
    streamed = stream()
    streamed.greet()
    streamed.peer.sendall(sent)
    assert streamed.closed() == (PROTOCOL_VIOLATION, PROTOCOL_VIOLATION)
    assert streamed.viewer.limit == Limit.PROTOCOL


@pytest.mark.parametrize("close", [TASK_ENDED, DISPLAY_RESTARTING])
def test_x11vnc_is_read_while_the_viewer_is_closed(stream, close):
    """A viewer that does not answer the Close does not block x11vnc, and so the others."""
    streamed = stream()
    streamed.greet()
    streamed.viewer.end(close)
    while streamed.read_frame()[0] != 0x8:
        pass
    streamed.x11vnc.sendall(bytes(1 << 20))
    assert streamed.join() == close


def test_viewers_close_is_answered(stream):
    streamed = stream()
    streamed.greet()
    streamed.peer.sendall(frame(struct.pack(">H", 1001) + b"bye", 0x8))
    assert streamed.read_frame() == (0x8, struct.pack(">H", 1001) + b"bye")
    assert streamed.join() == Close(code=1001, reason="bye")


def test_viewer_that_disconnects_without_a_close_is_1006(stream):
    streamed = stream()
    streamed.greet()
    streamed.peer.close()
    assert streamed.join() == Close(code=1006, reason="EOF")


def test_input_sent_directly_before_the_close_passes(stream):
    streamed = stream(control=True)
    streamed.greet()
    streamed.peer.sendall(frame(KEY_DOWN) + frame(KEY_UP) + frame(b"", 0x8))
    streamed.expect(KEY_DOWN + KEY_UP)


def test_keys_of_a_leaving_controller_are_released(stream):
    streamed = stream(control=True)
    streamed.greet()
    streamed.peer.sendall(frame(KEY_DOWN))
    streamed.expect(KEY_DOWN)
    streamed.peer.close()
    streamed.expect(KEY_UP)


class StoppedFor:
    """A clock; `seconds` is for how long the process was stopped so far."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return time.monotonic() + self.seconds


def test_viewer_is_kept_when_this_process_was_stopped(stream):
    """A pause longer than every limit, with a message incomplete and a frame under way."""
    stopped = StoppedFor()
    streamed = stream(monotonic=stopped)
    streamed.greet()
    streamed.peer.sendall(frame(UPDATE_REQUEST + UPDATE_REQUEST[:3]))
    streamed.expect(UPDATE_REQUEST)
    for _ in range(3):
        stopped.seconds += 2 * SILENT_S
        streamed.x11vnc.sendall(b"\x00update")
        assert streamed.read_frame() == (0x2, b"\x00update")
    streamed.peer.sendall(frame(UPDATE_REQUEST[3:]))
    streamed.expect(UPDATE_REQUEST)
    assert streamed.viewer.limit is None


def test_viewer_that_waits_for_x11vnc_in_the_handshake_is_kept(stream):
    """It has nothing to send until x11vnc has sent its part."""
    now = Ticking()
    streamed = stream(monotonic=now)
    streamed.x11vnc.sendall(PROTOCOL_VERSION)
    assert streamed.read_frame() == (0x2, PROTOCOL_VERSION)
    streamed.peer.sendall(frame(PROTOCOL_VERSION))
    assert now.run(streamed, MESSAGE_S * PATIENCE_MAX + 2) is None
    streamed.x11vnc.sendall(b"\x01\x01")
    assert streamed.read_frame() == (0x2, b"\x01\x01")


def test_viewer_that_does_not_answer_in_the_handshake_is_dropped(stream):
    now = Ticking()
    streamed = stream(monotonic=now)
    streamed.x11vnc.sendall(PROTOCOL_VERSION + b"\x01\x01")
    assert streamed.read_frame() == (0x2, PROTOCOL_VERSION)
    _, close = now.run(streamed, MESSAGE_S * PATIENCE_MAX + 2)
    streamed.peer.sendall(frame(close, 0x8))
    assert streamed.join() == VIEWER_TOO_SLOW
    assert streamed.viewer.limit == Limit.MESSAGE_TIME


class Ticking:
    """A clock that the test advances, second by second, while the viewer's thread attends."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s

    def run(self, streamed, seconds):
        """Advance, at each second the viewer's thread answers a ping; return its Close, if any."""
        for _ in range(int(seconds)):
            self.now_s += 1
            streamed.peer.sendall(frame(b"", 0x9))
            while (got := streamed.read_frame())[0] != 0xA:
                if got[0] == 0x8:
                    return got
        return None


def test_requests_of_an_overdrawn_viewer_are_held_back(stream):
    """They pass when its account of x11vnc's time is refilled."""
    cpu_s = [0.0]
    now = Ticking()
    share = Shares(now).join(lambda: cpu_s[0])
    streamed = stream(share=share, monotonic=now)
    streamed.greet()
    for _ in range(4):
        cpu_s[0] += 0.25
        streamed.x11vnc.sendall(b"\x00update")
        streamed.read_frame()
    streamed.peer.sendall(frame(INCREMENTAL) + frame(b"held?", 0x9))
    assert streamed.read_frame() == (0xA, b"held?")
    assert not select.select([streamed.x11vnc], [], [], 0)[0]
    assert now.run(streamed, 2) is None
    streamed.expect(INCREMENTAL)
