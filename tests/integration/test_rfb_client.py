"""The viewer of the tests, on a scripted server."""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest
from fake_rfb_server import (
    CLOSE,
    PING,
    PONG,
    FakeServer,
    Peer,
    close_frame,
    frame,
    rect,
    update,
)
from hypothesis import given
from hypothesis import strategies as st
from rfb_client import (
    COPY_RECT,
    CURSOR,
    DESKTOP_SIZE,
    LAST_RECT,
    RAW,
    X_CURSOR,
    Closed,
    Ended,
    Lost,
    ProtocolError,
    Refused,
    Viewer,
    half_open,
)
from viewers import (
    ActiveViewer,
    ReconnectingViewer,
    busy_updater,
    idle,
    large_update,
    mouse_mover,
    stalled,
    trickler,
)
from websocket_client import BINARY, CONTINUATION, WebSocket

if TYPE_CHECKING:
    from collections.abc import Callable

RED, BLUE, BLACK = b"\0\0\xff\0", b"\xff\0\0\0", b"\0\0\0\0"
SOON_S = 5


def after_handshake(
    *data: bytes, then: Callable[[Peer], object] = Peer.read_until_close
) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.handshake()
        for piece in data:
            peer.sock.sendall(piece)
        then(peer)

    return script


def no_more(_peer: Peer) -> None:
    """End TCP without a Close."""


def ends_cleanly(peer: Peer) -> None:
    assert peer.read_until_close()[:2] == struct.pack(">H", 1000)


CLEAN_END = close_frame(1000, "task success")


# Connecting


def test_connect_reports_the_desktop_and_the_time_of_each_step() -> None:
    with FakeServer(after_handshake(CLEAN_END)) as server, Viewer.connect(server.url) as viewer:
        assert (viewer.width, viewer.height, viewer.name) == (8, 4, "fake")
        assert list(viewer.connect_s) == ["tcp", "http", "version", "security", "init"]
        assert viewer.server_format.shifts == (16, 8, 0)


def test_sends_its_own_headers() -> None:
    requests: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.handshake()
        requests.extend(peer.request)
        peer.read_until_close()
        peer.sock.sendall(close_frame(1000, ""))

    headers = {"Origin": "https://evil.example", "Host": "rebound.example"}
    with FakeServer(script) as server, Viewer.connect(server.url, headers=headers):
        pass
    assert requests[0] == b"GET /tasks/1/websockify?token=t HTTP/1.1"
    assert b"Origin: https://evil.example" in requests
    assert [line for line in requests if line[:5] == b"Host:"] == [b"Host: rebound.example"]


@pytest.mark.parametrize("length", [b"Content-Length: 20\r\n", b""])
def test_a_refusal_has_status_detail_and_headers(length: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n" + length + b"\r\n"
        peer.sock.sendall(head + b'{"detail":')
        peer.sock.sendall(b' "later" }')

    with FakeServer(script) as server, pytest.raises(Refused) as caught:
        Viewer.connect(server.url)
    assert (caught.value.status, caught.value.detail) == (503, "later")
    assert caught.value.headers["retry-after"] == "2"


def test_a_refusal_that_is_not_json_has_no_detail() -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.sock.sendall(b"HTTP/1.0 404 Not Found\r\n\r\n<h1>no</h1>")

    with FakeServer(script) as server, pytest.raises(Refused) as caught:
        Viewer.connect(server.url)
    assert caught.value.detail is None
    assert caught.value.body == b"<h1>no</h1>"


def test_a_port_without_a_server_is_lost() -> None:
    with FakeServer(no_more) as server:
        pass
    with pytest.raises(Lost, match="refused"):
        Viewer.connect(server.url)


def test_a_server_that_closes_tcp_is_lost() -> None:
    with FakeServer(Peer.read_request) as server, pytest.raises(Lost, match="TCP ended"):
        Viewer.connect(server.url)


def test_a_server_that_never_answers_is_lost() -> None:
    hold = threading.Event()
    with FakeServer(lambda _: hold.wait(SOON_S)) as server:
        with pytest.raises(Lost, match="timed out"):
            Viewer.connect(server.url, timeout_s=0.05)
        hold.set()


def test_a_server_that_never_greets_is_lost() -> None:
    hold = threading.Event()

    def script(peer: Peer) -> None:
        peer.upgrade()
        hold.wait(SOON_S)

    with FakeServer(script) as server:
        with pytest.raises(Lost, match="handshake"):
            Viewer.connect(server.url, timeout_s=0.5)
        hold.set()


def test_a_close_in_the_handshake_is_the_end_of_the_stream() -> None:
    def script(peer: Peer) -> None:
        peer.upgrade(then=frame(b"RFB 003") + CLEAN_END)
        ends_cleanly(peer)

    with FakeServer(script) as server, pytest.raises(Ended) as caught:
        Viewer.connect(server.url)
    assert caught.value.closed == Closed(1000, "task success")
    assert caught.value.closed.clean


def test_a_wrong_accept_key_is_an_error() -> None:
    with (
        FakeServer(lambda peer: peer.upgrade(accept=b"x")) as server,
        pytest.raises(ProtocolError, match="Accept"),
    ):
        Viewer.connect(server.url)


def test_the_reason_of_an_rfb_refusal_is_in_the_error() -> None:
    def script(peer: Peer) -> None:
        peer.upgrade(then=frame(b"RFB 003.008\n\0" + struct.pack(">I", 4) + b"busy"))

    with FakeServer(script) as server, pytest.raises(ProtocolError, match="busy"):
        Viewer.connect(server.url)


# The close


def test_the_servers_close_is_answered_and_reported() -> None:
    with (
        FakeServer(after_handshake(CLEAN_END, then=ends_cleanly)) as server,
        Viewer.connect(server.url) as viewer,
    ):
        closed = viewer.wait_closed(SOON_S)
    assert closed == Closed(1000, "task success")
    assert closed.clean


def test_nothing_is_sent_after_the_answer() -> None:
    sent_after: list[bytes] = []

    def then(peer: Peer) -> None:
        peer.read_until_close()
        peer.sock.shutdown(socket.SHUT_WR)
        sent_after.append(peer.file.read())

    with (
        FakeServer(after_handshake(CLEAN_END, then=then)) as server,
        Viewer.connect(server.url) as viewer,
    ):
        with pytest.raises(Ended):
            viewer.read_update(SOON_S)
        viewer.pointer(1, 1)
        viewer.wait_closed(SOON_S)
    assert sent_after == [b""]


def test_a_close_behind_much_data_is_found() -> None:
    data = frame(bytes(2_000_000)) + close_frame(1000, "task failed")
    with (
        FakeServer(after_handshake(data, then=ends_cleanly)) as server,
        Viewer.connect(server.url) as viewer,
    ):
        assert viewer.wait_closed(SOON_S) == Closed(1000, "task failed")


def test_a_close_without_a_code_is_1005() -> None:
    with (
        FakeServer(after_handshake(frame(b"", opcode=CLOSE))) as server,
        Viewer.connect(server.url) as viewer,
    ):
        assert viewer.wait_closed(SOON_S) == Closed(1005)


@pytest.mark.parametrize("half", [b"", CLEAN_END[:5], frame(bytes(100))[:50]])
def test_an_end_without_a_whole_close_is_1006(half: bytes) -> None:
    with (
        FakeServer(after_handshake(half, then=no_more)) as server,
        Viewer.connect(server.url) as viewer,
    ):
        closed = viewer.wait_closed(SOON_S)
    assert closed == Closed(1006)
    assert not closed.clean


def test_a_reset_is_1006() -> None:
    def reset(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with (
        FakeServer(after_handshake(then=reset)) as server,
        Viewer.connect(server.url) as viewer,
    ):
        closed = viewer.wait_closed(SOON_S)
    assert closed == Closed(1006)
    assert "reset" in closed.detail


def test_a_server_that_does_not_wait_for_the_answer_is_not_clean() -> None:
    def then(peer: Peer) -> None:
        peer.sock.shutdown(socket.SHUT_RD)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with (
        FakeServer(after_handshake(CLEAN_END, then=then)) as server,
        Viewer.connect(server.url) as viewer,
    ):
        assert not viewer.wait_closed(SOON_S).clean


def test_tcp_left_open_after_the_close_is_an_error() -> None:
    hold = threading.Event()
    script = after_handshake(CLEAN_END, then=lambda _: hold.wait(SOON_S))
    with FakeServer(script) as server, Viewer.connect(server.url) as viewer:
        with pytest.raises(TimeoutError, match="TCP is still open"):
            viewer.wait_closed(0.05)
        hold.set()
        assert viewer.wait_closed(SOON_S) == Closed(1000, "task success")


def test_no_close_in_time_is_an_error() -> None:
    with (
        FakeServer(after_handshake()) as server,
        left(server) as viewer,
        pytest.raises(TimeoutError, match="no Close"),
    ):
        viewer.wait_closed(0.05)


def test_close_waits_for_the_answer() -> None:
    def then(peer: Peer) -> None:
        assert peer.read_until_close() == struct.pack(">H", 3001) + b"bye"
        peer.sock.sendall(frame(bytes(300_000)) + close_frame(3001, "bye"))

    with (
        FakeServer(after_handshake(then=then)) as server,
        Viewer.connect(server.url) as viewer,
    ):
        closed = viewer.close(3001, "bye")
    assert closed == Closed(3001, "bye")
    assert closed.clean


def test_it_can_leave_a_close_unanswered() -> None:
    def then(peer: Peer) -> None:
        peer.sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            peer.read_frame()

    with (
        FakeServer(after_handshake(CLEAN_END, then=then)) as server,
        Viewer.connect(server.url) as viewer,
    ):
        viewer.websocket.answers_close = False
        closed = viewer.wait_closed(SOON_S)
    assert closed == Closed(1000, "task success")
    assert not closed.clean


def test_abort_resets_the_connection() -> None:
    def then(peer: Peer) -> None:
        with pytest.raises(ConnectionResetError):
            peer.read_frame()

    with (
        FakeServer(after_handshake(then=then)) as server,
        Viewer.connect(server.url) as viewer,
    ):
        viewer.websocket.abort()


# Frames


@given(
    messages=st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4), max_size=6),
    cuts=st.lists(st.integers(min_value=1, max_value=200), min_size=1, max_size=8),
    takes=st.lists(st.integers(min_value=1, max_value=400), min_size=1, max_size=5),
)
def test_payloads_survive_any_fragmentation(
    messages: list[list[bytes]], cuts: list[int], takes: list[int]
) -> None:
    """Whatever the frames, pings between them, packets, and sizes of the reads."""
    wire, pings = b"", 0
    for pieces in messages:
        for at, piece in enumerate(pieces):
            opcode = CONTINUATION if at else BINARY
            wire += frame(b"hello", opcode=PING)
            wire += frame(piece, opcode=opcode, fin=at == len(pieces) - 1)
            pings += 1
    wire += CLEAN_END
    ours, theirs = socket.socketpair()
    with theirs, WebSocket(ours, wire[: cuts[0]]) as websocket:
        got, at, turn = b"", cuts[0], 0
        with contextlib.suppress(Ended):
            while True:
                target = memoryview(bytearray(takes[turn % len(takes)]))
                try:
                    got += target[: websocket.read_some(target, 0)]
                except TimeoutError:
                    cut = cuts[turn % len(cuts)]
                    theirs.send(wire[at : at + cut])
                    at += cut
                turn += 1
        theirs.shutdown(socket.SHUT_WR)
        assert websocket.wait_closed(SOON_S) == Closed(1000, "task success")
        assert websocket.pings == pings
        assert got == b"".join(piece for pieces in messages for piece in pieces)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_003])
def test_what_is_sent_arrives_unmasked(size: int) -> None:
    sent = (b"0123456789" * (size // 10 + 1))[:size]
    got: list[tuple[int, bytes]] = []

    def then(peer: Peer) -> None:
        got.append(peer.read_frame())
        peer.sock.sendall(CLEAN_END)
        peer.read_until_close()

    with (
        FakeServer(after_handshake(then=then)) as server,
        Viewer.connect(server.url) as viewer,
    ):
        viewer.raw(sent)
        viewer.wait_closed(SOON_S)
    assert got == [(BINARY, sent)]


def test_pings_are_counted_and_answered_unless_disabled() -> None:
    with pong_counter() as (server, pongs), Viewer.connect(server.url) as viewer:
        viewer.wait_closed(SOON_S)
        assert viewer.websocket.pings == 2
    assert pongs == [b"one", b"two"]
    with pong_counter() as (server, pongs), Viewer.connect(server.url) as viewer:
        viewer.websocket.answers_pings = False
        viewer.wait_closed(SOON_S)
        assert viewer.websocket.pings == 2
    assert pongs == []


@pytest.mark.parametrize(
    "wire",
    [
        b"\x82\x80\0\0\0\0",
        b"\xc2\0",
        b"\x81\1x",
        b"\x80\1x",
        b"\x83\0",
        b"\x8b\0",
        b"\x09\0",
        b"\x89\x7e\1\0",
        b"\x02\1x\x82\1x",
        b"\x88\1x",
        frame(struct.pack(">H", 1006), opcode=CLOSE),
        frame(struct.pack(">H", 999), opcode=CLOSE),
        frame(struct.pack(">H", 1000) + b"\xff", opcode=CLOSE),
    ],
)
def test_invalid_frames_are_an_error(wire: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs, ours:
        websocket = WebSocket(ours, wire)
        with pytest.raises(ProtocolError):
            websocket.wait_closed(0.05)


def test_sending_never_waits_for_a_server_that_does_not_read() -> None:
    hold = threading.Event()
    script = after_handshake(then=lambda peer: (hold.wait(SOON_S), peer.read_until_close()))
    with FakeServer(script) as server, Viewer.connect(server.url) as viewer:
        while viewer.websocket.pending_bytes < 1_000_000:
            viewer.raw(bytes(100_000))
        with pytest.raises(TimeoutError):
            viewer.websocket.flush(0.02)
        hold.set()
        viewer.close()
        assert viewer.websocket.pending_bytes == 0


def test_reading_can_be_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 500 kB/s, 100 kB take 0.2 s of pauses."""
    pauses: list[float] = []
    monkeypatch.setattr("websocket_client.time.sleep", pauses.append)
    with (
        FakeServer(after_handshake(frame(bytes(100_000)), CLEAN_END)) as server,
        Viewer.connect(server.url, recv_buffer_bytes=16_000) as viewer,
    ):
        read_bytes = viewer.websocket.received_bytes
        viewer.websocket.read_rate_bytes_s = 500_000
        viewer.wait_closed(SOON_S)
        read_bytes = viewer.websocket.received_bytes - read_bytes
        assert read_bytes >= 100_000
        assert sum(pauses) == pytest.approx(read_bytes / 500_000)


# RFB messages


def test_raw_rectangles_are_drawn() -> None:
    data = update(rect(0, 0, 8, 4, RAW, data=BLUE * 32), rect(1, 2, 2, 1, RAW, data=RED * 2))
    with viewing(data) as viewer:
        viewer.request_update(incremental=False)
        got = viewer.read_update(SOON_S)
        assert [(r.x, r.y, r.width, r.height) for r in got.rects] == [
            (0, 0, 8, 4),
            (1, 2, 2, 1),
        ]
        assert viewer.pixel(0, 0) == (0, 0, 255)
        assert [viewer.pixel(x, 2)[0] for x in range(4)] == [0, 255, 255, 0]
        assert got.started_s <= got.finished_s
        assert not viewer.mid_update


def test_an_overlapping_copy_takes_the_old_pixels() -> None:
    column = b"".join(bytes([row, 0, 0, 0]) * 8 for row in range(4))
    data = update(rect(0, 0, 8, 4, RAW, data=column))
    data += update(rect(0, 1, 8, 3, COPY_RECT, data=struct.pack(">HH", 0, 0)))
    with viewing(data) as viewer:
        viewer.read_update(SOON_S)
        viewer.read_update(SOON_S)
        assert [viewer.pixel(3, y)[2] for y in range(4)] == [0, 0, 1, 2]


def test_pseudo_rectangles_and_other_messages_are_understood() -> None:
    data = (
        b"\2"
        + struct.pack(">BxxxI", 3, 5)
        + b"caf\xe9!"
        + struct.pack(">BxHH", 1, 0, 2)
        + bytes(12)
        + update(
            rect(1, 1, 9, 2, CURSOR, data=bytes(9 * 2 * 4 + 2 * 2)),
            rect(0, 0, 9, 2, X_CURSOR, data=bytes(6 + 2 * 2 * 2)),
            rect(0, 0, 0, 0, X_CURSOR),
            rect(0, 0, 3, 2, DESKTOP_SIZE),
            rect(2, 1, 1, 1, RAW, data=RED),
            rect(0, 0, 0, 0, LAST_RECT),
            count=0xFFFF,
        )
    )
    with viewing(data) as viewer:
        assert len(viewer.read_update(SOON_S).rects) == 5
        assert (viewer.width, viewer.height, viewer.bells) == (3, 2, 1)
        assert viewer.cut_texts == ["café!"]
        assert viewer.pixel(2, 1) == (255, 0, 0)


def test_a_read_continues_after_a_timeout() -> None:
    data = update(rect(2, 1, 4, 2, RAW, data=RED * 8))
    go_on = threading.Semaphore(0)

    def then(peer: Peer) -> None:
        for at in range(len(data)):
            go_on.acquire(timeout=SOON_S)
            peer.send(data[at : at + 1])
        peer.read_until_close()

    with FakeServer(after_handshake(then=then)) as server, left(server) as viewer:
        for _ in data:
            with pytest.raises(TimeoutError):
                viewer.read_update(0)
            go_on.release()
        viewer.read_update(SOON_S)
        assert viewer.pixel(5, 2) == (255, 0, 0)


@pytest.mark.parametrize(
    "data", [update(rect(0, 0, 1, 1, 7)), update(rect(5, 0, 4, 1, RAW)), b"\x96"]
)
def test_messages_that_were_not_requested_are_an_error(data: bytes) -> None:
    with viewing(data) as viewer, pytest.raises(ProtocolError):
        viewer.read_update(SOON_S)


def test_its_messages_are_those_of_the_rfc() -> None:
    got: list[bytes] = []

    def then(peer: Peer) -> None:
        got.extend(peer.read_message() for _ in range(6))
        peer.read_until_close()

    with FakeServer(after_handshake(then=then)) as server, left(server) as viewer:
        viewer.request_update(incremental=True, x=2, y=1, w=3)
        viewer.key(0xFF0D, down=True)
        viewer.pointer(300, 2, 5)
        viewer.cut_text("é")
        viewer.set_desktop_size(640, 480)
        viewer.set_encodings(RAW, CURSOR)
    assert [message.hex() for message in got] == [
        "03010002000100030003",
        "040100000000ff0d",
        "0505012c0002",
        "0600000000000001e9",
        "fb00028001e001000000000000000000028001e000000000",
        "0200000200000000ffffff11",
    ]


# Behaviours


@pytest.mark.parametrize(
    "act",
    [
        idle,
        mouse_mover,
        busy_updater,
        functools.partial(busy_updater, outstanding=4),
        functools.partial(large_update, rate_bytes_s=40_000),
        functools.partial(stalled, for_s=0.05),
        functools.partial(trickler, interval_s=0.002),
    ],
)
def test_each_kind_of_viewer_sees_the_end(act: Callable[..., None]) -> None:
    ending = threading.Event()
    with FakeServer(lambda peer: peer.serve(ending, "task cancelled")) as server:
        watcher = ActiveViewer(act, Viewer.connect(server.url))
        watcher.wait_ready(SOON_S)
        ending.set()
        closed = watcher.result(SOON_S)
    assert closed == Closed(1000, "task cancelled")
    assert closed.clean
    assert watcher.closed_s is not None


def test_the_slow_reader_is_in_the_middle_of_an_update() -> None:
    ending = threading.Event()
    with FakeServer(lambda peer: peer.serve(ending, "")) as server:
        slow = functools.partial(large_update, rate_bytes_s=40_000)
        watcher = ActiveViewer(slow, Viewer.connect(server.url))
        watcher.wait_ready(SOON_S)
        assert watcher.viewer.mid_update
        ending.set()
        watcher.result(SOON_S)


def test_its_error_is_raised() -> None:
    with FakeServer(after_handshake(b"\x81\1x")) as server:
        watcher = ActiveViewer(idle, Viewer.connect(server.url))
        with pytest.raises(ProtocolError):
            watcher.result(SOON_S)


def test_the_reconnecting_viewer_connects_until_it_is_refused() -> None:
    ending, ended = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        if ended.is_set():
            peer.read_request()
            peer.sock.sendall(b'HTTP/1.1 409 Conflict\r\n\r\n{"detail": "no"}')
        else:
            peer.serve(ending, "task failed")
            if ending.is_set():
                ended.set()

    with FakeServer(script) as server:
        late = ReconnectingViewer(lambda: server.url)
        late.wait_ready(SOON_S)
        ending.set()
        *before, last = late.result(SOON_S)
    assert isinstance(last.outcome, Refused)
    assert before
    for attempt in before:
        assert isinstance(attempt.outcome, Closed)
        assert attempt.outcome.code == 1000
        assert attempt.left or attempt.outcome.reason == "task failed"


def test_a_half_open_request_never_ends() -> None:
    got: list[bytes] = []
    with FakeServer(lambda peer: got.append(peer.file.read())) as server:
        half_open("127.0.0.1", server.port).close()
    assert got[0].startswith(b"GET / HTTP/1.1\r\n")
    assert b"\r\n\r\n" not in got[0]


@contextlib.contextmanager
def left(server: FakeServer):
    """A viewer that leaves without waiting for an answer."""
    viewer = Viewer.connect(server.url)
    try:
        yield viewer
    finally:
        with contextlib.suppress(TimeoutError):
            viewer.close(timeout_s=1)
        viewer.websocket.abort()


@contextlib.contextmanager
def viewing(data: bytes):
    """A viewer of a server that sends just this."""
    with FakeServer(after_handshake(frame(data))) as server, left(server) as viewer:
        yield viewer


@contextlib.contextmanager
def pong_counter():
    """A server that pings twice and collects the answers."""
    pongs: list[bytes] = []

    def then(peer: Peer) -> None:
        peer.sock.sendall(frame(b"one", opcode=PING) + frame(b"two", opcode=PING) + CLEAN_END)
        while (got := peer.read_frame())[0] != CLOSE:
            assert got[0] == PONG
            pongs.append(got[1])

    with FakeServer(after_handshake(then=then)) as server:
        yield server, pongs
