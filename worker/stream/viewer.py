"""One viewer: its bytes to and from x11vnc, and how it is told that the stream is over.

Each viewer has a thread of its own. Nothing here waits without a deadline, and x11vnc is always
read, so a viewer that is slow, silent or hostile costs the others nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from worker.outcome import (
    DISPLAY_RESTARTING,
    PROTOCOL_VIOLATION,
    VIEWER_TOO_SLOW,
    Close,
    CloseCode,
)
from worker.rfb.client_filter import PROTOCOL_VERSION, ProtocolViolation
from worker.rfb.last_frame import LastFrame
from worker.stream.policy import Pace
from worker.stream.websocket import MessageTooLarge, PeerGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.rfb.client_filter import ClientFilter
    from worker.stream.websocket import ViewerSocket


FLUSH_S: Final = 0.3  # what is queued may still leave before the Close frame
CLOSE_S: Final = 1.0  # for the peer's answering Close
RELEASE_S: Final = 0.5  # for x11vnc to take the events that let go of a controller's keys
VERDICT_S: Final = 0.3  # for the session to say why x11vnc is gone

QUEUE_MAX_BYTES: Final = 16 * 1024 * 1024
HOLD_BYTES: Final = 1024 * 1024  # above this the viewer's own update requests wait
FRAME_SENT_S: Final = 0.02  # a whole frame is out when x11vnc has been quiet for so long
INPUT_MAX_BYTES: Final = 256 * 1024
STALLED_S: Final = 10.0
LEAST_BYTES: Final = 32 * 1024  # in STALLED_S, while more waits: less is not reading
MESSAGE_S: Final = 10.0  # for a message to arrive whole, and so for each step of the handshake
SLOWEST_BYTES_S: Final = 4096  # and so much longer for a large one
PING_S: Final = 20.0
SILENT_S: Final = 60.0

_RECEIVE_BYTES: Final = 256 * 1024
_TICK_S: Final = 1.0
_FINE_TICK_S: Final = 0.02
_FRAMEBUFFER_UPDATE: Final = 0  # the first byte of the message (RFC 6143, section 7.6)
_ABNORMAL: Final = 1006  # never sent: how RFC 6455 names an end without a Close frame


class _Greeting:
    """Keeps the handshake's steps apart (RFC 6143, section 7.1.1).

    x11vnc was told the version before the viewer spoke, so its own version and its security types
    can arrive as one; but noVNC takes one step a message and would wait for ever. So the version
    goes out by itself, and what is behind it when the viewer has answered.
    """

    def __init__(self) -> None:
        self._waiting = b""
        self._greeted = False
        self._answer_bytes = 0

    def from_server(self, data: bytes) -> list[bytes]:
        """The messages that may go to the viewer now that x11vnc has sent this."""
        if self._greeted and self._answered and not self._waiting:
            return [data]
        self._waiting += data
        messages = []
        if not self._greeted and len(self._waiting) >= len(PROTOCOL_VERSION):
            messages.append(self._waiting[: len(PROTOCOL_VERSION)])
            self._waiting = self._waiting[len(PROTOCOL_VERSION) :]
            self._greeted = True
        return messages + self._rest()

    def from_viewer(self, data: bytes) -> list[bytes]:
        """The messages that may go to the viewer now that it has sent this."""
        if self._answered:
            return []
        self._answer_bytes += len(data)
        return self._rest()

    @property
    def _answered(self) -> bool:
        return self._answer_bytes >= len(PROTOCOL_VERSION)

    def _rest(self) -> list[bytes]:
        if not (self._greeted and self._answered and self._waiting):
            return []
        rest, self._waiting = self._waiting, b""
        return [rest]


class Viewer:
    """A connected viewer. `run` belongs to its thread; `end` may be called from any."""

    def __init__(
        self,
        client: ViewerSocket,
        server: socket.socket,
        rfb: ClientFilter,
        on_first_frame: Callable[[], None] = lambda: None,
        *,
        ping_s: float = PING_S,
        silent_s: float = SILENT_S,
    ) -> None:
        self._on_first_frame: Callable[[], None] | None = on_first_frame
        self._ping_s, self._silent_s = ping_s, silent_s
        self._client = client
        self._server = server
        self._rfb = rfb
        self._to_server = bytearray()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_open = threading.Lock()
        self._end: Close | None = None
        self._last_frame: LastFrame | None = None
        self._quiet_since = 0.0
        self._server_lost_at: float | None = None
        self._heard_at = self._pinged_at = self._whole_at = time.monotonic()
        self._whole_bytes, self._completed = 0, 0
        self._holding = False
        self._frame_began = False
        self._greeting = _Greeting()
        self._pace = Pace(window_s=STALLED_S, least_bytes=LEAST_BYTES)

    @property
    def sent_bytes(self) -> int:
        """How much this viewer was sent so far."""
        return self._client.sent_bytes

    def end(self, close: Close) -> None:
        """Tell the viewer that the stream is over; the first reason given stands."""
        with self._wake_open:
            if self._end is None:
                self._end = close
                if self._wake >= 0:
                    os.eventfd_write(self._wake, 1)

    def run(self) -> Close:
        """Forward until the end; returns the close code and reason that this viewer got.

        1006 stands for a viewer that went away without a Close frame.
        """
        try:
            close = self._forward()
            if close is None:
                return self._let_go()
            return self._say_goodbye(close)
        except PeerGone as error:
            return Close(code=_ABNORMAL, reason=str(error))
        finally:
            self._release_input()
            self._server.close()
            with self._wake_open:
                os.close(self._wake)
                self._wake = -1

    # -- forwarding

    def _forward(self) -> Close | None:
        """Forward both ways until it is decided how this ends; None: the viewer closed."""
        while True:
            now = time.monotonic()
            decided = self._decide(now)
            if decided is not None:
                return decided
            fine = self._end or self._server_lost_at or self._rfb.awaits_frame
            ready = self._wait(_FINE_TICK_S if fine else min(_TICK_S, self._ping_s))
            if self._wake in ready:
                os.eventfd_read(self._wake)
            if self._server.fileno() in ready:
                self._from_server()
            if self._client.fileno() in ready and not self._from_client():
                return None
            self._flush_client()
            self._flush_server()

    def _decide(self, now: float) -> Close | None:
        if self._end is not None:
            if self._last_frame is None:
                ask = bool(self._rfb.update_requests) and not self._client.pending_bytes
                self._last_frame = LastFrame(now, ask=ask)
                self._ask_for_last_frame()
            lost = self._server_lost_at is not None or self._end.code != CloseCode.TASK_ENDED
            if lost or self._last_frame.is_out(now):
                return self._end
        elif self._server_lost_at is not None and now - self._server_lost_at >= VERDICT_S:
            return DISPLAY_RESTARTING
        stalled = self._pace.too_slow(
            now, waiting=bool(self._client.pending_bytes), taken_bytes=self._client.sent_bytes
        )
        if stalled or self._client.pending_bytes > QUEUE_MAX_BYTES or self._is_late(now):
            return VIEWER_TOO_SLOW
        if now - self._heard_at >= self._silent_s:
            raise PeerGone("silent")
        if now - max(self._heard_at, self._pinged_at) >= self._ping_s:
            self._pinged_at = now
            self._client.queue_ping()
        return None

    def _is_late(self, now: float) -> bool:
        """Whether a message, or a step of the handshake, has been on its way for too long."""
        owes = self._rfb.mid_message or self._client.mid_message
        is_read = len(self._to_server) < INPUT_MAX_BYTES
        if self._completed != self._rfb.completed or not owes or not is_read:
            self._completed = self._rfb.completed
            self._whole_at, self._whole_bytes = now, self._client.received_bytes
        arrived = self._client.received_bytes - self._whole_bytes
        return now - self._whole_at >= MESSAGE_S + arrived / SLOWEST_BYTES_S

    def _wait(self, timeout_s: float) -> set[int]:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        mask = select.POLLIN if len(self._to_server) < INPUT_MAX_BYTES else 0
        poll.register(
            self._client.fileno(), mask | (select.POLLOUT if self._client.pending_bytes else 0)
        )
        if self._server_lost_at is None:
            poll.register(
                self._server.fileno(), select.POLLIN | (select.POLLOUT if self._to_server else 0)
            )
        wanted = select.POLLIN | select.POLLHUP | select.POLLERR
        return {fd for fd, event in poll.poll(timeout_s * 1000) if event & wanted}

    def _from_server(self) -> None:
        try:
            data = self._server.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        now = time.monotonic()
        if not data:
            self._server_lost_at = now
            return
        self._quiet_since = now
        self._frame_began = True
        if self._last_frame is not None:
            self._last_frame.heard(now)
            self._ask_for_last_frame()
        for message in self._greeting.from_server(data):
            self._client.queue_message(message)
        if self._on_first_frame and self._rfb.update_requests and data[0] == _FRAMEBUFFER_UPDATE:
            self._on_first_frame()
            self._on_first_frame = None

    def _from_client(self) -> bool:
        """Take what the viewer sent; False when it is closing the connection."""
        try:
            messages = self._client.receive()
            self._heard_at = time.monotonic()
            if messages is None or self._client.close_queued:
                return False
            for message in messages:
                awaited = self._rfb.awaits_frame
                self._to_server += self._rfb.feed(message)
                self._frame_began &= awaited or not self._rfb.awaits_frame
                for waiting in self._greeting.from_viewer(message):
                    self._client.queue_message(waiting)
        except (ProtocolViolation, MessageTooLarge):
            self.end(PROTOCOL_VIOLATION)
        return True

    def _flush_client(self) -> None:
        if self._client.pending_bytes and self._client.flush() and self._client.pending_bytes:
            self._heard_at = time.monotonic()  # it reads, though our ping may still be queued
        self._hold_back()

    def _hold_back(self) -> None:
        """Keep a slow viewer's update requests, so that x11vnc does not send what cannot leave."""
        if not self._holding and self._client.pending_bytes > HOLD_BYTES:
            self._holding = True
            self._rfb.hold_updates()
        elif self._holding and self._client.pending_bytes < HOLD_BYTES // 2:
            self._holding = False
            self._to_server += self._rfb.release_updates()
        if self._rfb.awaits_frame and self._frame_is_sent():
            self._to_server += self._rfb.frame_sent()
            self._frame_began = False

    def _frame_is_sent(self) -> bool:
        """Whether the frame that was asked for has come from x11vnc, and left for the viewer."""
        quiet = time.monotonic() - self._quiet_since >= FRAME_SENT_S
        return quiet and self._frame_began and not self._client.pending_bytes

    def _flush_server(self) -> None:
        if not self._to_server or self._server_lost_at is not None:
            return
        try:
            sent = self._server.send(self._to_server)
        except BlockingIOError:
            return
        except OSError:
            return  # x11vnc is gone; reading says so too
        del self._to_server[:sent]

    # -- the end

    def _ask_for_last_frame(self) -> None:
        if self._last_frame is not None and self._last_frame.asks:
            self._to_server += self._rfb.look_again()

    def _release_input(self) -> None:
        """Let go of what a controller that leaves holds down; x11vnc would not."""
        events = self._rfb.release_input()
        if not events or self._server_lost_at is not None:
            return
        deadline = time.monotonic() + RELEASE_S
        with contextlib.suppress(OSError):
            self._server.settimeout(RELEASE_S)
            self._server.sendall(bytes(self._to_server) + events)
            self._server.shutdown(socket.SHUT_WR)
            # Until it has read all, and closes: a broken pipe would come before what is unread.
            while time.monotonic() < deadline and self._server.recv(_RECEIVE_BYTES):
                pass

    def _say_goodbye(self, close: Close) -> Close:
        """Send Close behind what is queued, and read until the answering Close.

        The viewer's data must be read to the end: closing a socket with unread data makes the
        kernel reset the connection, and the Close frame is lost.
        """
        deadline = time.monotonic() + FLUSH_S
        while self._client.pending_bytes and time.monotonic() < deadline:
            self._exchange(deadline)
            if self._client.close_received:
                break
        self._client.drop_unsent()
        self._client.queue_close(close)
        return self._let_go()

    def _let_go(self) -> Close:
        """Send what must still leave, and wait for the viewer's Close frame."""
        deadline = time.monotonic() + CLOSE_S
        try:
            while time.monotonic() < deadline:
                if self._client.close_received and not self._client.pending_bytes:
                    break
                self._exchange(deadline)
        except PeerGone:
            if self._client.pending_bytes:
                raise  # it never saw the Close frame
        closed = self._client.closed_with
        return closed or Close(code=_ABNORMAL, reason="")

    def _exchange(self, deadline: float) -> None:
        """Send and receive once; what the viewer says is not listened to any more."""
        poll = select.poll()
        pending = bool(self._client.pending_bytes)
        poll.register(
            self._client.fileno(),
            (0 if self._client.close_received else select.POLLIN)
            | (select.POLLOUT if pending else 0),
        )
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        self._client.flush()
        if not self._client.close_received:
            try:
                self._client.receive()
            except MessageTooLarge:
                self._client.drop_received()
