"""Filters what one viewer sends: only messages that its role allows reach the VNC server.

`worker.rfb.messages` defines which messages pass, and why.

The output consists of complete messages. libvncserver serves its clients one after the other and
reads each message to its end, so a partial message from a viewer that stalls would block all other
viewers. Between two outputs the caller can also insert messages of its own.
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

    The caller sends `PROTOCOL_VERSION` to the VNC server as soon as it is connected; the filter
    verifies the viewer's and drops it.

    Between two calls the filter buffers the message that is not yet complete: at most 2052 bytes
    (SetEncodings) or, with control, 1 MiB and 8 bytes (ClientCutText). A message that does not pass
    is skipped without buffering it.

    Args:
        control: Whether key events, pointer events and cut text pass too.
        one_frame: Whether non-incremental update requests pass one at a time: the next one is held
            back until `frame_sent`.

    Attributes:
        update_requests: How many FramebufferUpdateRequests have passed so far.
        completed: How many messages have arrived completely so far, whether they passed or not.
        awaits_frame: With `one_frame`, whether a non-incremental request has passed and
            `frame_sent` has not been called since.
    """

    def __init__(self, *, control: bool, one_frame: bool = False) -> None:
        self.update_requests = self.completed = 0
        self._control = control
        self._handshake = list(HANDSHAKE)
        self._partial = bytearray()  # the message that is not yet complete
        self._wanted_bytes = 1  # how much of it is needed to continue parsing
        self._skip_bytes = 0  # how much is yet to arrive of a message that does not pass
        self._violated = False
        self._one_frame, self.awaits_frame = one_frame, False
        self._holding = False
        self._held_request = self._last_request = b""
        self._keys_down: dict[int, None] = {}  # in the order in which they were pressed
        self._pointer = b""

    def feed(self, data: bytes | bytearray) -> bytes:
        """Take what the viewer sent; return the messages to send to the VNC server.

        Raises:
            ProtocolViolation: It is not RFB 3.8; neither `data` nor anything later passes.
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
        """Whether a message, or the handshake, has not arrived completely."""
        return bool(self._handshake or self._partial or self._skip_bytes)

    def hold_updates(self) -> None:
        """Hold update requests back from now on, merged into one that covers them all.

        x11vnc sends a viewer only what was requested, so it stops sending.
        """
        self._holding = True

    def release_updates(self) -> bytes:
        """Let update requests pass again; return the one that was held back, if any."""
        self._holding = False
        request = self._held_request
        if not request or (self.awaits_frame and _is_full(request)):
            return b""
        self._held_request = b""
        return self._request(request)

    def frame_sent(self) -> bytes:
        """Let the next non-incremental request pass; return the one that was held back, if any.

        x11vnc answers each of them with a full update, up to 8 MB of pixels, even if several
        arrive at once, so they pass one at a time.
        """
        self.awaits_frame = False
        return b"" if self._holding else self.release_updates()

    def last_frame_requests(self) -> bytes:
        """Return requests that make x11vnc send what has changed since its last update.

        The first is non-incremental, for one pixel, and is answered at once. libvncserver then
        takes the viewer's own last request as answered too, so the second, incremental one
        replaces it. Empty if the viewer has requested nothing yet.
        """
        if not self._last_request:
            return b""
        kind, _, x, y, width, height = UPDATE_REQUEST.unpack(self._last_request)
        pixel = UPDATE_REQUEST.pack(kind, False, x, y, 1, 1)
        return pixel + UPDATE_REQUEST.pack(kind, True, x, y, width, height)

    def release_input(self) -> bytes:
        """Return the events that release every key and button that the viewer holds down.

        Neither libvncserver nor x11vnc releases them when a client disconnects, and the task's
        browser would continue with, for example, Shift held down.
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

    def _request(self, request: bytes) -> bytes:
        self.update_requests += 1
        self._last_request = request
        self.awaits_frame |= self._one_frame and _is_full(request)
        return request

    def _parse(self, received: bytes) -> tuple[bytes, int]:
        """Return the messages in `received` that pass, and how many bytes were parsed."""
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
            if self._holding or (self.awaits_frame and _is_full(passed)):
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


def _is_full(request: bytes) -> bool:
    """Whether an update request is non-incremental: for pixels whether or not they changed."""
    _, incremental, *_ = UPDATE_REQUEST.unpack(request)
    return not incremental


def _merged(held: bytes, request: bytes) -> bytes:
    """Return one request for both areas, non-incremental if either is."""
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
