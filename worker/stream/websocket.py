"""The viewer's WebSocket: websockify's protocol code with bounded buffers on both sides.

RFC 6455. websockify's own class keeps whatever a peer sends and whatever it is slow to take;
here a message has a largest size, and outgoing frames wait in a queue whose size its owner sees.
"""

from __future__ import annotations

import errno
import sys
import warnings
from collections import deque
from typing import Any, Final

# websockify unmasks with numpy when it is there: 100 ms and 25 MB for messages of a few bytes.
sys.modules.setdefault("numpy", None)  # type: ignore[arg-type]  # None: as if not installed

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it misses numpy
    from websockify.websocket import WebSocketWantReadError
    from websockify.websockifyserver import CompatibleWebSocket

from worker.outcome import Close  # noqa: E402 - behind the import that numpy must be kept from

NO_STATUS: Final = 1005  # never sent: a Close frame without a code (RFC 6455, section 7.1.5)
MESSAGE_MAX_BYTES: Final = 2 * 1024 * 1024
CONTROL_MAX_BYTES: Final = 125  # RFC 6455, section 5.5
SUPPORTED_VERSION: Final = "13"
_RECEIVE_BYTES: Final = 16384
_SEND_BATCH: Final = 64
_BINARY: Final = 0x2
_PING: Final = 0x9
_PONG: Final = 0xA
_CONTROL_BIT: Final = 0x8
_HEAD_BYTES: Final = 2
_LENGTH_MASK: Final = 0x7F
_LENGTH_64: Final = 127
_LENGTH_64_END: Final = 10


class MessageTooLarge(Exception):
    """The peer sends a message that no RFB client would."""


class PeerGone(Exception):
    """The peer's TCP connection ended without a Close frame."""


class ViewerSocket(CompatibleWebSocket):  # type: ignore[misc]  # websockify is untyped
    """One viewer's WebSocket; non-blocking after the handshake."""

    def __init__(self, handler: Any) -> None:
        super().__init__(handler)
        self._outbox: deque[memoryview] = deque()
        self._front_is_partial = False
        self._pong: memoryview | None = None  # the one that waits in the outbox
        self._newer_ping: bytes | None = None
        self.closed_with: Close | None = None
        self.pending_bytes = 0
        self.received_bytes = 0
        self.sent_bytes = 0

    def adopt(self, early: bytes) -> None:
        """Go on without blocking; `early` is what arrived behind the request already."""
        self.setblocking(False)
        self._recv_buffer = bytearray(early)

    # -- receiving

    def receive(self) -> list[bytes] | None:
        """All messages that have arrived; None when the peer has sent its Close.

        Raises:
            PeerGone: the connection ended without one.
            MessageTooLarge: a message is larger than any RFB client's.
        """
        messages: list[bytes] = []
        try:
            self._fill()
            while True:
                message = self._recvmsg()
                if message is None:
                    return None
                messages.append(message)
        except WebSocketWantReadError:
            return messages

    def _fill(self) -> None:
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            data = None
        except OSError as error:
            raise PeerGone(errno.errorcode.get(error.errno or 0, "OSError")) from error
        if data == b"":
            raise PeerGone("EOF")
        if data is not None:
            self.received_bytes += len(data)
            self._recv_buffer += data
        while frame := self._decode_hybi(self._recv_buffer):
            del self._recv_buffer[: frame["length"]]
            self._recv_queue.append(frame)
        if len(self._recv_buffer) + len(self._partial_msg) > MESSAGE_MAX_BYTES:
            raise MessageTooLarge

    def _decode_hybi(self, buf: bytearray) -> dict[str, Any] | None:
        if len(buf) >= _HEAD_BYTES:
            size = buf[1] & _LENGTH_MASK
            if buf[0] & _CONTROL_BIT and size > CONTROL_MAX_BYTES:
                raise MessageTooLarge
            if size == _LENGTH_64 and len(buf) >= _LENGTH_64_END:
                size = int.from_bytes(buf[_HEAD_BYTES:_LENGTH_64_END], "big")
                if size > MESSAGE_MAX_BYTES:
                    raise MessageTooLarge
        frame: dict[str, Any] | None = super()._decode_hybi(buf)
        return frame

    def _unmask(self, buf: bytearray, mask: bytearray) -> bytearray:
        # Not bytes: fragments are added to the first one, which must not copy it each time.
        size = len(buf)
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        return bytearray((int.from_bytes(buf, "big") ^ key).to_bytes(size, "big"))

    def handle_ping(self, data: bytes) -> None:
        """Answer the newest ping only (RFC 6455, section 5.5.3), so that pongs cannot pile up."""
        if self._pong is None:
            self._pong = self._queue(self._encode_hybi(_PONG, data))
        else:
            self._newer_ping = data

    @property
    def mid_message(self) -> bool:
        """Whether a part of a message has arrived and the rest has not."""
        return bool(self._recv_buffer or self._partial_msg)

    def drop_received(self) -> None:
        """Forget what has arrived and was not understood."""
        self._recv_buffer, self._partial_msg = bytearray(), b""

    # -- sending

    def queue_message(self, data: bytes) -> None:
        """Queue one binary message."""
        self._queue(self._encode_hybi(_BINARY, data))

    def queue_ping(self) -> None:
        """Queue a ping, which every WebSocket peer answers."""
        self._queue(self._encode_hybi(_PING, b""))

    def queue_close(self, close: Close) -> None:
        """Queue a Close frame; nothing is queued behind it."""
        self.shutdown(None, close.code, close.reason)

    def drop_unsent(self) -> None:
        """Forget the queued data frames of which no byte was sent yet."""
        kept = deque(
            frame
            for index, frame in enumerate(self._outbox)
            if (index == 0 and self._front_is_partial) or frame[0] & _CONTROL_BIT
        )
        self._outbox = kept
        self.pending_bytes = sum(len(frame) for frame in kept)

    def flush(self) -> int:
        """Send what the kernel takes; returns how many bytes it took.

        Raises:
            PeerGone: the connection is broken.
        """
        total = 0
        while self._outbox:
            batch = [self._outbox[index] for index in range(min(len(self._outbox), _SEND_BATCH))]
            try:
                sent = self.socket.sendmsg(batch)
            except BlockingIOError:
                break
            except OSError as error:
                raise PeerGone(errno.errorcode.get(error.errno or 0, "OSError")) from error
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
        data, self._pong, self._newer_ping = self._newer_ping, None, None
        if data is not None and not self.close_queued:
            self.handle_ping(data)

    def _queue(self, frame: bytes) -> memoryview:
        waiting = memoryview(frame)
        self._outbox.append(waiting)
        self.pending_bytes += len(frame)
        return waiting

    # -- what websockify's class calls

    def shutdown(self, how: object, code: int = 1000, reason: str | None = None) -> None:
        """Queue a Close frame; websockify calls this to answer a Close, and for bad frames."""
        if self.closed_with is None:
            self.closed_with = Close(code=code or NO_STATUS, reason=reason or "")
        super().shutdown(how, code, reason)

    def _send(self, data: bytes) -> None:
        self._queue(data)  # pongs and Close frames wait their turn like everything else

    def _flush(self) -> None:
        return

    def _close(self) -> None:
        return  # the handler owns the TCP socket

    def select_subprotocol(self, protocols: list[str]) -> str:
        """`binary` when it is offered, else none."""
        offered = [protocol.strip() for protocol in protocols]
        protocols[:] = [*offered, ""]  # what websockify checks the choice against
        return "binary" if "binary" in offered else ""

    @property
    def close_queued(self) -> bool:
        """Whether a Close frame was queued, by its owner or for a protocol error."""
        return bool(self._sent_close)

    @property
    def close_received(self) -> bool:
        """Whether the peer has sent its Close frame."""
        return bool(self._received_close)
