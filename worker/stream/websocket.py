"""A viewer's WebSocket (RFC 6455): websockify's handshake and framing between bounded buffers.

websockify's own socket class buffers without a limit in both directions. Here a message has a
maximum size, and outgoing frames are kept in a queue whose size the caller can see.
"""

from __future__ import annotations

import errno
import select
import struct
import sys
import time
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any, Final

# websockify unmasks with numpy if it is installed: 100 ms and 25 MB for messages of a few bytes.
sys.modules.setdefault("numpy", None)  # type: ignore[arg-type]  # None: as if not installed

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # websockify's warning that numpy is missing
    from websockify.websocket import WebSocket, WebSocketWantWriteError

# After the import from which numpy is kept out.
from worker.close_codes import Close  # noqa: E402
from worker.linux import unacknowledged_bytes  # noqa: E402

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

SUPPORTED_VERSION: Final = "13"
HANDSHAKE_S: Final = 10.0  # for the peer to take the response
MESSAGE_MAX_BYTES: Final = 2 * 1024 * 1024  # twice the largest RFB message, ClientCutText
CONTROL_MAX_BYTES: Final = 125  # RFC 6455, section 5.5
NO_STATUS: Final = 1005  # never sent: a Close frame without a code (RFC 6455, section 7.1.5)
_PROTOCOL_ERROR: Final = 1002
_UNSUPPORTED_DATA: Final = 1003
_RECEIVE_BYTES: Final = 16384
_SEND_BATCH: Final = 64

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_CONTROL_BIT: Final = 0x8
_HEAD_BYTES: Final = 2
_LENGTH_MASK: Final = 0x7F
_LENGTH_64: Final = 127
_LENGTH_64_END: Final = 10
_CLOSE_CODE_BYTES: Final = 2


class BadHandshake(Exception):
    """The request is not a WebSocket handshake; no byte of a response has been sent."""


class MessageTooLarge(Exception):
    """The peer sends a frame or message larger than any RFB client's."""


class PeerGone(Exception):
    """The peer's TCP connection ended without a Close frame."""


def accept(
    connection: socket.socket,
    headers: Mapping[str, str],
    early: bytes = b"",
    *,
    timeout_s: float = HANDSHAKE_S,
) -> ViewerSocket:
    """Answer a WebSocket upgrade request (RFC 6455, section 4.2) with 101.

    The subprotocol is `binary` if the client offers it, otherwise none.

    Args:
        connection: The client's TCP connection. It becomes non-blocking and stays the caller's,
            who closes it.
        headers: The request's, with a case-insensitive `get`.
        early: What has been received after the request's head.
        timeout_s: For the client to take the response.

    Raises:
        BadHandshake: The request is not a handshake that can be answered with 101.
        PeerGone: The connection broke, or did not take the response in time.
    """
    if headers.get("Sec-WebSocket-Version") != SUPPORTED_VERSION:
        raise BadHandshake(f"only WebSocket version {SUPPORTED_VERSION} is supported")
    connection.setblocking(False)
    deadline = time.monotonic() + timeout_s
    protocol = _Protocol()
    while True:
        try:
            protocol.accept(connection, headers)
        except WebSocketWantWriteError:
            _wait_writable(connection, deadline)
        except OSError as error:
            raise _gone(error) from error
        except Exception as error:  # websockify has no exception of its own for a bad handshake
            raise BadHandshake(str(error)) from error
        else:
            return ViewerSocket(connection, early)


def _wait_writable(connection: socket.socket, deadline: float) -> None:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLOUT)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise PeerGone("handshake timed out")


def _gone(error: OSError) -> PeerGone:
    return PeerGone(errno.errorcode.get(error.errno or 0, "OSError"))


class _Protocol(WebSocket):  # type: ignore[misc]  # websockify is untyped
    """websockify's handshake and framing, without its buffers."""

    # Framing alone is not part of websockify's public interface.
    encode = WebSocket._encode_hybi  # noqa: SLF001
    decode = WebSocket._decode_hybi  # noqa: SLF001

    def select_subprotocol(self, protocols: list[str]) -> str:
        """Return `binary` if it is offered, otherwise none; `accept` calls this."""
        offered = [protocol.strip() for protocol in protocols]
        protocols[:] = [*offered, ""]  # websockify verifies that the choice is in this list
        return "binary" if "binary" in offered else ""

    def _unmask(self, buf: bytearray, mask: bytearray) -> bytearray:
        # One operation on integers: websockify's loop over bytes takes 0.1 s for each megabyte.
        size = len(buf)
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        return bytearray((int.from_bytes(buf, "big") ^ key).to_bytes(size, "big"))


class ViewerSocket:
    """One viewer's WebSocket after the handshake, on a non-blocking TCP connection.

    Args:
        connection: The TCP connection; its owner closes it.
        early: What has been received after the request's head.

    Attributes:
        closed_with: The first Close that was queued; None until then.
        close_received: Whether the peer's Close frame has been received.
        pending_bytes: How much is queued and not yet sent.
        received_bytes: How much has been received in total.
        received_frames: How many frames have been received in total.
        sent_bytes: How much has been sent in total.
    """

    def __init__(self, connection: socket.socket, early: bytes = b"") -> None:
        self._connection = connection
        protocol = _Protocol()
        self._encode, self._decode = protocol.encode, protocol.decode
        self._received = bytearray(early)  # at most a part of a frame, between two calls
        self._message: bytearray | None = None  # the fragments so far of a message
        self._outbox: deque[memoryview] = deque()
        self._front_is_partial = False
        self._pong: memoryview | None = None  # the one that is in the outbox
        self._newer_ping: bytes | None = None
        self.closed_with: Close | None = None
        self.close_received = False
        self.pending_bytes = self.received_bytes = self.sent_bytes = 0
        self.received_frames = 0

    def fileno(self) -> int:
        """Return the connection's descriptor, for poll."""
        return self._connection.fileno()

    @property
    def acknowledged_bytes(self) -> int:
        """How much of what was sent the peer has acknowledged."""
        return max(0, self.sent_bytes - unacknowledged_bytes(self._connection))

    @property
    def close_queued(self) -> bool:
        """Whether a Close frame was queued, by the caller or in answer to the peer."""
        return self.closed_with is not None

    # -- receiving

    @property
    def mid_message(self) -> bool:
        """Whether a part of a message has arrived and the rest has not."""
        return bool(self._received) or self._message is not None

    def receive(self) -> list[bytearray]:
        """Return the messages that have arrived.

        Pings and the peer's Close frame are answered through the queue. After a Close frame, in
        either direction, no more messages are returned.

        Raises:
            PeerGone: The connection ended without a Close frame.
            MessageTooLarge: What has arrived of the message is discarded.
        """
        messages: list[bytearray] = []
        self._fill()
        try:
            self._decode_frames(messages)
        except MessageTooLarge:
            self._received.clear()
            self._message = None
            raise
        return messages

    def _fill(self) -> None:
        try:
            data = self._connection.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise _gone(error) from error
        if not data:
            raise PeerGone("EOF")
        self.received_bytes += len(data)
        self._received += data

    def _decode_frames(self, messages: list[bytearray]) -> None:
        received, decode = self._received, self._decode
        while len(received) >= _HEAD_BYTES and not self.close_received:
            if received[1] & _LENGTH_MASK > CONTROL_MAX_BYTES:
                _check_size(received)
            frame = decode(received)
            if frame is None:
                break
            del received[: frame["length"]]
            self.received_frames += 1
            if not frame["masked"]:
                self._fail(_PROTOCOL_ERROR, "frame not masked")
            elif frame["opcode"] & _CONTROL_BIT:
                self._take_control(frame["opcode"], bytes(frame["payload"]), fin=frame["fin"])
            elif self.closed_with is None:
                self._take_data(frame, messages)
        size = len(received) + (0 if self._message is None else len(self._message))
        if size > MESSAGE_MAX_BYTES:
            raise MessageTooLarge

    def _take_data(self, frame: dict[str, Any], messages: list[bytearray]) -> None:
        opcode, payload = frame["opcode"], frame["payload"]
        if opcode == _TEXT:
            self._fail(_UNSUPPORTED_DATA, "text frames are not supported")
        elif opcode not in {_CONTINUATION, _BINARY}:
            self._fail(_UNSUPPORTED_DATA, f"unknown opcode {opcode:#04x}")
        elif (opcode == _CONTINUATION) != (self._message is not None):
            self._fail(_PROTOCOL_ERROR, "fragments out of order")
        else:
            message = payload if self._message is None else self._message
            if message is not payload:
                message += payload
            if frame["fin"]:
                messages.append(message)
                self._message = None
            else:
                self._message = message

    def _take_control(self, opcode: int, payload: bytes, *, fin: bool) -> None:
        self.close_received |= opcode == _CLOSE
        if not fin:
            self._fail(_UNSUPPORTED_DATA, "fragmented control frame")
        elif opcode == _CLOSE:
            self._answer_close(payload)
        elif opcode == _PING:
            self._answer_ping(payload)
        elif opcode != _PONG:
            self._fail(_UNSUPPORTED_DATA, f"unknown opcode {opcode:#04x}")

    def _answer_close(self, payload: bytes) -> None:
        if len(payload) < _CLOSE_CODE_BYTES:
            self._queue_close(Close(code=NO_STATUS, reason=""), b"")
            return
        (code,) = struct.unpack_from(">H", payload)
        try:
            reason = payload[_CLOSE_CODE_BYTES:].decode()
        except UnicodeDecodeError:
            self._fail(_PROTOCOL_ERROR, "invalid UTF-8 in close reason")
        else:
            self._queue_close(Close(code=code, reason=reason), payload)

    def _answer_ping(self, payload: bytes) -> None:
        """Answer the newest ping only (RFC 6455, section 5.5.3), so that pongs cannot pile up."""
        if self._pong is not None:
            self._newer_ping = payload
        elif not self.close_queued:
            self._pong = self._queue(self._encode(_PONG, payload))

    def _fail(self, code: int, reason: str) -> None:
        self.queue_close(Close(code=code, reason=reason))

    # -- sending

    def queue_message(self, data: bytes) -> None:
        """Queue one binary message."""
        self._queue(self._encode(_BINARY, data))

    def queue_ping(self) -> None:
        """Queue a ping, which every WebSocket peer answers."""
        self._queue(self._encode(_PING, b""))

    def queue_close(self, close: Close) -> None:
        """Queue a Close frame unless one was queued before; queue nothing after it.

        Args:
            close: Its reason has at most 123 bytes as UTF-8 (RFC 6455, section 5.5).
        """
        self._queue_close(close, struct.pack(">H", close.code) + close.reason.encode())

    def _queue_close(self, close: Close, payload: bytes) -> None:
        if self.closed_with is None:
            self.closed_with = close
            self._queue(self._encode(_CLOSE, payload))

    def drop_unsent(self) -> None:
        """Discard the queued data frames of which no byte has been sent."""
        kept = deque(
            frame
            for index, frame in enumerate(self._outbox)
            if (index == 0 and self._front_is_partial) or frame[0] & _CONTROL_BIT
        )
        self._outbox = kept
        self.pending_bytes = sum(len(frame) for frame in kept)

    def flush(self) -> int:
        """Send what the kernel takes; return how many bytes that were.

        Raises:
            PeerGone: The connection is broken.
        """
        total = 0
        while self._outbox:
            batch = [self._outbox[index] for index in range(min(len(self._outbox), _SEND_BATCH))]
            try:
                sent = self._connection.sendmsg(batch)
            except BlockingIOError:
                break
            except OSError as error:
                raise _gone(error) from error
            total += sent
            self._forget(sent)
        self.sent_bytes += total
        return total

    def _forget(self, sent: int) -> None:
        self.pending_bytes -= sent
        while sent:
            front = self._outbox[0]
            if sent < len(front):
                rest = self._outbox[0] = front[sent:]
                if front is self._pong:
                    self._pong = rest
                self._front_is_partial = True
                return
            sent -= len(front)
            self._outbox.popleft()
            self._front_is_partial = False
            if front is self._pong:
                self._next_pong()

    def _next_pong(self) -> None:
        payload, self._pong, self._newer_ping = self._newer_ping, None, None
        if payload is not None:
            self._answer_ping(payload)

    def _queue(self, frame: bytes) -> memoryview:
        queued = memoryview(frame)
        self._outbox.append(queued)
        self.pending_bytes += len(frame)
        return queued


def _check_size(received: bytearray) -> None:
    """Refuse a frame that announces too large a payload, before it has arrived."""
    if received[0] & _CONTROL_BIT:
        raise MessageTooLarge
    if received[1] & _LENGTH_MASK == _LENGTH_64 and len(received) >= _LENGTH_64_END:
        size = int.from_bytes(received[_HEAD_BYTES:_LENGTH_64_END], "big")
        if size > MESSAGE_MAX_BYTES:
            raise MessageTooLarge
