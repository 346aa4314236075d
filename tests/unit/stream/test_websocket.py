"""A viewer's WebSocket: the handshake, and what it accepts from a peer, hostile ones included."""

from __future__ import annotations

import socket
import struct
from email.message import Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.close_codes import Close
from worker.stream.websocket import (
    MESSAGE_MAX_BYTES,
    BadHandshake,
    MessageTooLarge,
    PeerGone,
    ViewerSocket,
    accept,
)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x00, 0x01, 0x02, 0x88, 0x89, 0x8A
FIN = 0x80
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.3
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def masked(payload, first=FIN | BINARY, length=None):
    size = len(payload) if length is None else length
    if size < 126:
        head = struct.pack(">BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, 0xFE, size)
    else:
        head = struct.pack(">BBQ", first, 0xFF, size)
    mask = b"\x01\x02\x03\x04"
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def closing(code, reason=b""):
    return masked(struct.pack(">H", code) + reason, CLOSE)


def request_headers(**changed):
    headers = Message()
    for name, value in (UPGRADE | {k.replace("_", "-"): v for k, v in changed.items()}).items():
        if value is not None:
            headers[name] = value
    return headers


@pytest.fixture
def ends():
    """The server's and the peer's end of a connection."""
    ours, peer = socket.socketpair()
    with ours, peer:
        yield ours, peer


@pytest.fixture
def pair(ends):
    """The server's WebSocket, and the peer's end of the connection."""
    ours, peer = ends
    ours.setblocking(False)
    return ViewerSocket(ours), peer


# The handshake


def test_handshake_is_answered_with_101(ends):
    """The accepted key is the example of RFC 6455, section 1.3."""
    ours, peer = ends
    accept(ours, request_headers())
    status, *fields = peer.recv(4096).split(b"\r\n")
    assert status == b"HTTP/1.1 101 Switching Protocols"
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in fields
    assert fields[-2:] == [b"", b""]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        ("", None),
        ("base64", None),
        ("binary", b"binary"),
        ("base64, binary", b"binary"),
    ],
)
def test_subprotocol_is_binary_if_offered(ends, offered, chosen):
    ours, peer = ends
    accept(ours, request_headers(Sec_WebSocket_Protocol=offered))
    fields = dict(line.split(b": ", 1) for line in peer.recv(4096).split(b"\r\n")[1:-2])
    assert fields.get(b"Sec-WebSocket-Protocol") == chosen


@pytest.mark.parametrize(
    "changed",
    [
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Sec_WebSocket_Version": None},
        {"Sec_WebSocket_Version": "8"},
        {"Sec_WebSocket_Version": "14"},
        {"Sec_WebSocket_Key": None},
        {"Sec_WebSocket_Key": "not ascii \u00fc"},
    ],
)
def test_bad_handshake_is_refused_before_anything_is_sent(ends, changed):
    ours, peer = ends
    with pytest.raises(BadHandshake):
        accept(ours, request_headers(**changed))
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(1)


def test_frame_that_arrived_with_the_request_is_received(ends):
    ours, peer = ends
    websocket = accept(ours, request_headers(), masked(b"early")[:7])
    peer.sendall(masked(b"early")[7:])
    assert websocket.receive() == [b"early"]


def test_handshake_does_not_wait_longer_than_its_timeout(ends):
    ours, _peer = ends
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            ours.send(bytes(1 << 16))
    with pytest.raises(PeerGone, match="timed out"):
        accept(ours, request_headers(), timeout_s=0.01)


def test_handshake_with_a_closed_peer_ends(ends):
    ours, peer = ends
    peer.close()
    with pytest.raises(PeerGone):
        accept(ours, request_headers())


# Messages


def test_message_in_fragments_and_packets_arrives_whole(pair):
    websocket, peer = pair
    sent = masked(b"one", BINARY) + masked(b"", PING) + masked(b" mess", CONTINUATION)
    sent += masked(b"age", FIN)
    got = []
    for byte in sent:
        peer.sendall(bytes([byte]))
        got += websocket.receive()
        assert websocket.mid_message or byte == sent[-1]
    assert got == [b"one message"]
    assert not websocket.mid_message


@given(
    messages=st.lists(st.binary(max_size=300), max_size=8),
    fragment_bytes=st.integers(1, 300),
    packet_bytes=st.integers(1, 500),
)
@settings(deadline=None)
def test_any_fragments_and_packets_give_the_same_messages(messages, fragment_bytes, packet_bytes):
    sent = b""
    for message in messages:
        parts = [message[i : i + fragment_bytes] for i in range(0, len(message), fragment_bytes)]
        for index, part in enumerate(parts or [b""]):
            opcode = CONTINUATION if index else BINARY
            last = FIN if index >= len(parts) - 1 else 0
            sent += masked(part, opcode | last)
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        websocket = ViewerSocket(ours)
        got = []
        for at in range(0, len(sent), packet_bytes):
            peer.sendall(sent[at : at + packet_bytes])
            got += websocket.receive()
        assert got == messages
        assert not websocket.mid_message


@pytest.mark.parametrize(
    "frame",
    [
        masked(b"", PING, length=126),
        masked(b"", CLOSE, length=1 << 16),
        masked(b"", length=MESSAGE_MAX_BYTES + 1),
        masked(b"", length=(1 << 64) - 1),
    ],
)
def test_frame_too_large_is_refused_when_announced(pair, frame):
    websocket, peer = pair
    peer.sendall(frame)
    with pytest.raises(MessageTooLarge):
        websocket.receive()
    assert not websocket.mid_message


def test_fragments_too_large_together_are_refused_and_discarded(pair):
    websocket, peer = pair
    piece, received = bytes(8000), 0
    peer.sendall(masked(piece, BINARY))
    with pytest.raises(MessageTooLarge):
        while received <= 2 * MESSAGE_MAX_BYTES:
            assert websocket.receive() == []
            peer.sendall(masked(piece, CONTINUATION))
            received += len(piece)
    assert received <= MESSAGE_MAX_BYTES + 4 * len(piece)
    assert not websocket.mid_message


# Close


def sent_frames(websocket, peer):
    """Flush, and return what the peer receives as (first byte, payload)."""
    while websocket.flush():
        pass
    data, frames = peer.recv(1 << 16), []
    while data:
        size = data[1]
        assert size < 126
        frames.append((data[0], data[2 : 2 + size]))
        data = data[2 + size :]
    return frames


@pytest.mark.parametrize(
    ("frame", "payload", "closed_with"),
    [
        (masked(b"", CLOSE), b"", Close(code=1005, reason="")),
        (closing(1000), struct.pack(">H", 1000), Close(code=1000, reason="")),
        (closing(4321, b"bye"), struct.pack(">H", 4321) + b"bye", Close(code=4321, reason="bye")),
    ],
)
def test_close_is_echoed(pair, frame, payload, closed_with):
    websocket, peer = pair
    peer.sendall(masked(b"before") + frame + masked(b"after"))
    assert websocket.receive() == [b"before"]
    assert websocket.close_received
    assert websocket.closed_with == closed_with
    assert sent_frames(websocket, peer) == [(CLOSE, payload)]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x82\x05hello", 1002),
        (masked(b"x", FIN | CONTINUATION), 1002),
        (masked(b"x", BINARY) + masked(b"y"), 1002),
        (closing(1000, b"\xff"), 1002),
        (masked(b"x", FIN | TEXT), 1003),
        (masked(b"x", FIN | 0x03), 1003),
        (masked(b"x", FIN | 0x0B), 1003),
        (masked(b"x", 0x09), 1003),
        (masked(struct.pack(">H", 1000), 0x08), 1003),
    ],
)
def test_invalid_frame_is_answered_with_a_close(pair, frame, code):
    websocket, peer = pair
    peer.sendall(frame + masked(b"after"))
    assert websocket.receive() == []
    assert websocket.closed_with.code == code
    ((first, payload),) = sent_frames(websocket, peer)
    assert (first, payload[:2]) == (CLOSE, struct.pack(">H", code))


def test_first_close_is_the_only_one(pair):
    websocket, peer = pair
    websocket.queue_close(Close(code=1000, reason="task success"))
    websocket.queue_close(Close(code=1008, reason="viewer too slow"))
    peer.sendall(masked(b"", PING) + closing(1001))
    websocket.receive()
    assert websocket.closed_with == Close(code=1000, reason="task success")
    assert sent_frames(websocket, peer) == [(CLOSE, struct.pack(">H", 1000) + b"task success")]


def test_end_of_tcp_without_a_close_is_an_error(pair):
    websocket, peer = pair
    peer.close()
    with pytest.raises(PeerGone, match="EOF"):
        websocket.receive()


# Sending


def test_pings_do_not_accumulate(pair):
    """A peer that pings and does not read gets two pongs: the first ping's and the last ping's."""
    websocket, peer = pair
    for number in range(1000):
        peer.sendall(masked(str(number).encode(), PING))
        websocket.receive()
    assert websocket.pending_bytes < 10
    assert sent_frames(websocket, peer) == [(PONG, b"0"), (PONG, b"999")]


def test_unsent_data_is_dropped_but_not_a_frame_under_way(pair):
    websocket, peer = pair
    first, second = bytes(4 << 20), b"second"
    websocket.queue_message(first)
    websocket.flush()
    websocket.queue_message(second)
    websocket.drop_unsent()
    websocket.queue_close(Close(code=1000, reason=""))
    received = b""
    while websocket.pending_bytes:
        received += peer.recv(1 << 20)
        websocket.flush()
    peer.setblocking(False)
    while len(received) < len(first) + 14:
        received += peer.recv(1 << 20)
    assert received == struct.pack(">BBQ", 0x82, 127, len(first)) + first + (
        bytes([CLOSE, 2]) + struct.pack(">H", 1000)
    )
    assert websocket.sent_bytes == len(received)
