"""The viewer's WebSocket: what it takes from a peer that means harm."""

from __future__ import annotations

import socket
import struct

import pytest

from worker.stream.websocket import MESSAGE_MAX_BYTES, MessageTooLarge, ViewerSocket

PING, PONG = 0x89, 0x8A


def masked(payload, first=0x82, length=None):
    size = len(payload) if length is None else length
    if size < 126:
        head = struct.pack(">BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, 0xFE, size)
    else:
        head = struct.pack(">BBQ", first, 0xFF, size)
    mask = b"\x01\x02\x03\x04"
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


@pytest.fixture
def pair():
    """The server's WebSocket, and the peer's end of the connection."""
    ours, peer = socket.socketpair()
    websocket = ViewerSocket(None)
    websocket.socket, websocket.client = ours, False
    websocket.adopt(b"")
    with ours, peer:
        yield websocket, peer


def test_message_in_pieces(pair):
    """However a message is cut, in frames and in TCP, it arrives whole."""
    websocket, peer = pair
    sent = masked(b"one", 0x02) + masked(b"", PING) + masked(b" mess", 0x00) + masked(b"age", 0x80)
    got = []
    for byte in sent:
        peer.sendall(bytes([byte]))
        got += websocket.receive()
        assert websocket.mid_message or byte == sent[-1]
    assert got == [b"one message"]


@pytest.mark.parametrize(
    "frame",
    [
        masked(b"", PING, length=126),
        masked(b"", 0x88, length=1 << 16),
        masked(b"", length=MESSAGE_MAX_BYTES + 1),
        masked(b"", length=(1 << 64) - 1),
    ],
)
def test_frame_that_is_too_long(pair, frame):
    """A frame that says it is too long is refused before any of it is kept."""
    websocket, peer = pair
    peer.sendall(frame)
    with pytest.raises(MessageTooLarge):
        websocket.receive()


def test_pings_do_not_pile_up(pair):
    """A peer that pings and does not read is owed two pongs at most, the last ping's among them."""
    websocket, peer = pair
    for number in range(1000):
        peer.sendall(masked(str(number).encode(), PING))
        websocket.receive()
    assert websocket.pending_bytes < 10
    while websocket.flush():
        pass
    assert peer.recv(100) == bytes([PONG, 1]) + b"0" + bytes([PONG, 3]) + b"999"
