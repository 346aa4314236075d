"""The filter on the client's side of RFB: what one viewer sends, reduced to what may pass.

Bytes in, bytes out, no sockets. Which messages pass, and why, is said in `rfb_messages`.

What goes out is always whole messages. libvncserver serves its clients one after the other and
reads a message to its end, so half of one, from a viewer that stalls, would freeze all the others.
It also lets the server put messages of its own between any two outputs.
"""

from __future__ import annotations

from typing import Final

from worker.rfb.messages import (
    HANDSHAKE,
    KEY_EVENT,
    MESSAGES,
    POINTER_EVENT,
    PROTOCOL_VERSION,
    UPDATE_REQUEST,
    Message,
    MessageType,
    ProtocolViolation,
)

__all__ = ["PROTOCOL_VERSION", "ClientFilter", "ProtocolViolation"]

MAX_KEYS_DOWN: Final = 256
_U16_MAX: Final = 0xFFFF


class ClientFilter:
    """Filters what one viewer sends, from its first byte on.

    The proxy itself says `PROTOCOL_VERSION` to the VNC server, as soon as it is connected; the
    filter checks the viewer's and swallows it.

    Between two calls it holds the message that is not yet complete: at most 2052 bytes
    (SetEncodings) or, with control, 1 MiB and 8 bytes (ClientCutText). What does not pass is
    skipped, not held.

    Args:
        control: Whether the viewer's keys, pointer and clipboard text pass too.
        one_frame: Whether a request for a whole frame waits until `frame_sent` says that the one
            before was answered.

    Attributes:
        update_requests: How many FramebufferUpdateRequests have gone out so far.
        completed: How many messages have ended so far, whether they passed or not.
        awaits_frame: With `one_frame`, such a request has gone out and is not yet answered.
    """

    def __init__(self, *, control: bool, one_frame: bool = False) -> None:
        self.update_requests = self.completed = 0
        self._control = control
        self._handshake = list(HANDSHAKE)
        self._partial = bytearray()  # the message that is not yet complete
        self._wanted_bytes = 1  # how much of it must be there for parsing to go on
        self._skip_bytes = 0  # what is still to come of a message that does not pass
        self._violated = False
        self._one_frame, self.awaits_frame = one_frame, False
        self._holding = False
        self._held_request = self._last_request = b""
        self._keys_down: dict[int, None] = {}  # in the order they were pressed
        self._pointer = b""

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; return the messages that may go to the VNC server.

        Raises:
            ProtocolViolation: This is not RFB 3.8; neither `data` nor anything later passes.
        """
        if self._violated:
            raise ProtocolViolation("data after a violation")
        skipped = min(self._skip_bytes, len(data))
        self._skip_bytes -= skipped
        self._partial += data[skipped:]
        if len(self._partial) < self._wanted_bytes:
            return b""
        received = bytes(self._partial)
        try:
            passed, consumed = self._parse(received)
        except ProtocolViolation:
            self._violated = True
            self._partial.clear()
            raise
        self._partial = bytearray(received[consumed:])
        return passed

    @property
    def mid_message(self) -> bool:
        """Whether the viewer owes the rest of a message, or of the handshake."""
        return bool(self._handshake or self._partial or self._skip_bytes)

    def hold_updates(self) -> None:
        """Keep update requests back from now on, merged into one that covers them all.

        x11vnc sends a viewer only what it asked for, so this stops the stream at its source.
        """
        self._holding = True

    def release_updates(self) -> bytes:
        """Let update requests pass again; return the one that was kept back, if any."""
        self._holding = False
        request = self._held_request
        if not request or (self.awaits_frame and _is_whole(request)):
            return b""
        self._held_request = b""
        return self._request(request)

    def frame_sent(self) -> bytes:
        """Let the next request for a whole frame pass; return the one that was kept back, if any.

        x11vnc answers each such request with a whole frame, 8 MB of pixels at worst, however many
        come at once. So they pass one after the other.
        """
        self.awaits_frame = False
        return b"" if self._holding else self.release_updates()

    def look_again(self) -> bytes:
        """Return requests for a pixel afresh, and for what changed of what was asked for last.

        The one is answered at once; the other takes the place of the viewer's own request, which
        libvncserver counts as answered by that. Empty when the viewer has asked for nothing yet.
        """
        if not self._last_request:
            return b""
        kind, _, x, y, width, height = UPDATE_REQUEST.unpack(self._last_request)
        pixel = UPDATE_REQUEST.pack(kind, False, x, y, 1, 1)
        return pixel + UPDATE_REQUEST.pack(kind, True, x, y, width, height)

    def _request(self, request: bytes) -> bytes:
        self.update_requests += 1
        self._last_request = request
        self.awaits_frame |= self._one_frame and _is_whole(request)
        return request

    def release_input(self) -> bytes:
        """Return the events that let go of every key and button the viewer has down.

        For a controller that leaves: neither libvncserver nor x11vnc does it for a client that is
        gone, and the task's browser would go on with, say, Shift held down.
        """
        up = False
        events = [
            KEY_EVENT.pack(MessageType.KEY_EVENT, up, keysym)
            for keysym in reversed(self._keys_down)
        ]
        if self._pointer:
            _, buttons, x, y = POINTER_EVENT.unpack(self._pointer)
            if buttons:
                events.append(POINTER_EVENT.pack(MessageType.POINTER_EVENT, 0, x, y))
        self._keys_down.clear()
        self._pointer = b""
        return b"".join(events)

    def _parse(self, received: bytes) -> tuple[bytes, int]:
        """Return what passes of `received`, and how many of its bytes are dealt with."""
        passed: list[bytes] = []
        start, end = 0, len(received)
        self._wanted_bytes = 1
        while start < end:
            message = self._message(received[start])
            head = received[start : start + message.head_bytes]
            if len(head) < message.head_bytes:
                self._wanted_bytes = message.head_bytes
                break
            size = message.size(head)
            admitted = message.control(head) if self._control else message.view(head)
            if admitted and start + size > end:
                self._wanted_bytes = size
                break
            if admitted:
                passed.append(self._pass(message, received[start : start + size]))
            start += size
            self.completed += 1
        self._skip_bytes = max(0, start - end)
        return b"".join(passed), min(start, end)

    def _message(self, first_byte: int) -> Message:
        if self._handshake:
            return self._handshake[0]
        message = MESSAGES.get(first_byte)
        if message is None:
            raise ProtocolViolation("unknown message type")
        return message

    def _pass(self, message: Message, raw: bytes) -> bytes:
        passed = message.rewrite(raw)
        if self._handshake:
            del self._handshake[0]
        elif raw[0] == MessageType.FRAMEBUFFER_UPDATE_REQUEST:
            if self._holding or (self.awaits_frame and _is_whole(passed)):
                self._held_request = _merged(self._held_request, passed)
                return b""
            return self._request(passed)
        elif passed:
            self._remember_input(passed)
        return passed

    def _remember_input(self, passed: bytes) -> None:
        if passed[0] == MessageType.POINTER_EVENT:
            self._pointer = passed
        elif passed[0] == MessageType.KEY_EVENT:
            _, down, keysym = KEY_EVENT.unpack(passed)
            if not down:
                self._keys_down.pop(keysym, None)
            elif len(self._keys_down) < MAX_KEYS_DOWN:
                self._keys_down[keysym] = None


def _is_whole(request: bytes) -> bool:
    """Whether an update request wants its pixels whether or not they changed."""
    _, incremental, *_ = UPDATE_REQUEST.unpack(request)
    return not incremental


def _merged(held: bytes, request: bytes) -> bytes:
    """Return one request for all that both ask for, and afresh if either wants it so."""
    if not held:
        return request
    _, held_incremental, held_x, held_y, held_width, held_height = UPDATE_REQUEST.unpack(held)
    _, incremental, x, y, width, height = UPDATE_REQUEST.unpack(request)
    left, top = min(held_x, x), min(held_y, y)
    right = max(held_x + held_width, x + width)
    bottom = max(held_y + held_height, y + height)
    return UPDATE_REQUEST.pack(
        MessageType.FRAMEBUFFER_UPDATE_REQUEST,
        min(held_incremental, incremental),
        left,
        top,
        min(right - left, _U16_MAX),
        min(bottom - top, _U16_MAX),
    )
