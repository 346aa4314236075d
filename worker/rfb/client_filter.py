"""Filters what one viewer sends: only messages that its role allows reach the VNC server.

`worker.rfb.messages` defines which messages pass, and why.

The output consists of complete messages. libvncserver serves its clients one after the other and
reads each message to its end, so a partial message from a viewer that stalls would block all other
viewers. Between two outputs the caller can also insert messages of its own.

Messages that come too fast wait and keep their order; update requests and motions of the pointer
are merged instead. The caller calls `advance` when `due_at` has come.
"""

from __future__ import annotations

from typing import Final

from worker.rfb.messages import (
    ALL_MESSAGES,
    HANDSHAKE,
    INPUT_RATE,
    MESSAGES,
    PROTOCOL_VERSION,
    Message,
    MessageType,
    ProtocolViolation,
    RateLimit,
)
from worker.rfb.rate import Rate
from worker.rfb.update_requests import UpdateRequests
from worker.rfb.viewer_input import ViewerInput

__all__ = ["PROTOCOL_VERSION", "ClientFilter", "ProtocolViolation"]

_PAUSE_S: Final = 0.02  # at least, before messages that wait are parsed again


class ClientFilter:
    """Filters what one viewer sends, from its first byte on.

    The caller sends `PROTOCOL_VERSION` to the VNC server as soon as it is connected; the filter
    verifies the viewer's and drops it.

    Between two calls the filter buffers the message that is not yet complete: at most 2052 bytes
    (SetEncodings) or, with control, 1 MiB and 8 bytes (ClientCutText). A message that does not pass
    is skipped without buffering it. While `paused` it also buffers what it was given after that.

    Times are in seconds of one monotonic clock.

    Args:
        control: Whether key events, pointer events and cut text pass too.
        screen_px: Width and height of the framebuffer.
        one_frame: Whether non-incremental update requests pass one at a time.

    Attributes:
        requests: The viewer's update requests; `advance` passes those that are due.
        completed: How many messages have arrived completely so far, whether they passed or not.
        handshakes: How many steps of the handshake have arrived completely, of three.
    """

    def __init__(
        self, *, control: bool, screen_px: tuple[int, int], one_frame: bool = False
    ) -> None:
        self.requests = UpdateRequests(screen_px, one_frame=one_frame)
        self.completed = self.handshakes = 0
        self._control = control
        self._input = ViewerInput(screen_px)
        self._partial = bytearray()  # the message that is not yet complete, or must wait
        self._wanted_bytes = 1  # how much of it is needed to continue parsing
        self._skip_bytes = 0  # how much is yet to arrive of a message that does not pass
        self._violated = False
        self._resume_at: float | None = None
        self._all = Rate(per_s=ALL_MESSAGES.per_s, burst=ALL_MESSAGES.burst)
        self._rates: dict[RateLimit, Rate] = {}

    def feed(self, data: bytes | bytearray, now: float) -> bytes:
        """Take what the viewer sent; return the messages to send to the VNC server.

        Raises:
            ProtocolViolation: It is not RFB 3.8; neither `data` nor anything later passes.
        """
        if self._violated:
            raise ProtocolViolation("data after a violation")
        skipped = min(self._skip_bytes, len(data))
        self._skip_bytes -= skipped
        self._partial += data[skipped:]
        return self.advance(now)

    def advance(self, now: float) -> bytes:
        """Return the messages that may pass now: what waited, and what has arrived since.

        Raises:
            ProtocolViolation: As for `feed`.
        """
        passed: list[bytes] = []
        if self._resume_at is None or now >= self._resume_at:
            self._resume_at = None
            if len(self._partial) >= self._wanted_bytes:
                try:
                    self._parse(passed, now)
                except ProtocolViolation:
                    self._violated = True
                    self._partial.clear()
                    raise
        passed += self._input.due(now), self.requests.due(now)
        return b"".join(passed)

    def due_at(self, now: float) -> float | None:
        """Return when to call `advance`; None if nothing waits for a time."""
        times = (self._resume_at, self._input.due_at(now), self.requests.due_at(now))
        return min((time for time in times if time is not None), default=None)

    def charge(self, messages: int, now: float) -> None:
        """Charge the viewer for what it made the caller do, as so many messages."""
        self._all.take(now, messages)
        ready_at = self._all.ready_at(now)
        if ready_at > now:
            self._resume_at = max(self._resume_at or 0.0, ready_at, now + _PAUSE_S)

    @property
    def paused(self) -> bool:
        """Whether messages wait: the caller reads nothing more from the viewer then."""
        return self._resume_at is not None

    @property
    def mid_message(self) -> bool:
        """Whether a part of a message has arrived and the rest has not."""
        return bool(self._partial or self._skip_bytes)

    def release_input(self) -> bytes:
        """Return the events that release every key and button that the viewer holds down."""
        return self._input.release()

    def _parse(self, passed: list[bytes], now: float) -> None:
        """Move the messages of `_partial` that pass, and whose time has come, to `passed`."""
        received = self._partial
        start, end = 0, len(received)
        self._wanted_bytes = 1
        while start < end:
            message = self._message(received[start])
            head = bytes(received[start : start + message.head_bytes])
            if len(head) < message.head_bytes:
                self._wanted_bytes = message.head_bytes
                break
            size = message.size(head)
            admitted = message.control(head) if self._control else message.view(head)
            if admitted and start + size > end:
                self._wanted_bytes = size
                break
            if self._must_wait(message if admitted else None, head, now):
                break
            if admitted:
                passed += self._pass(message, bytes(received[start : start + size]), now)
            start += size
            self.completed += 1
        self._skip_bytes = max(0, start - end)
        del received[: min(start, end)]

    def _message(self, first_byte: int) -> Message:
        if self.handshakes < len(HANDSHAKE):
            return HANDSHAKE[self.handshakes]
        message = MESSAGES.get(first_byte)
        if message is None:
            raise ProtocolViolation("unknown message type")
        return message

    def _must_wait(self, message: Message | None, head: bytes, now: float) -> bool:
        """Charge a message to its budgets, or note when there will be room for it."""
        rates = [self._all]
        if message is not None and message.rate is not None:
            is_motion = head[0] == MessageType.POINTER_EVENT and self._input.is_motion(head)
            if not (message.rate is INPUT_RATE and is_motion):
                rates.append(self._rate(message.rate))
        ready_at = max(rate.ready_at(now) for rate in rates)
        if ready_at > now:
            self._resume_at = max(ready_at, now + _PAUSE_S)
            return True
        for rate in rates:
            rate.take(now)
        return False

    def _rate(self, limit: RateLimit) -> Rate:
        if limit not in self._rates:
            self._rates[limit] = Rate(per_s=limit.per_s, burst=limit.burst)
        return self._rates[limit]

    def _pass(self, message: Message, raw: bytes, now: float) -> list[bytes]:
        rewritten = message.rewrite(raw)
        if self.handshakes < len(HANDSHAKE):
            self.handshakes += 1
            return [rewritten]
        if not rewritten:
            return []
        match rewritten[0]:
            case MessageType.FRAMEBUFFER_UPDATE_REQUEST:
                self.requests.add(rewritten)
                return [self.requests.due(now)]
            case MessageType.KEY_EVENT:
                return [self._input.key(rewritten)]
            case MessageType.POINTER_EVENT:
                return [self._input.pointer(rewritten, now)]
            case _:
                return [self._input.flush(), rewritten]
