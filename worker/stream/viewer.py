"""One viewer: its thread, which forwards between its WebSocket and x11vnc until the end.

What to do, and when, is decided by `worker.stream.policy`. Every wait has a deadline, and x11vnc is
always read, so a slow, silent or hostile viewer does not delay the others.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Final, assert_never

from worker.attended.clock import AttendedClock
from worker.close_codes import PROTOCOL_VIOLATION, Close
from worker.rfb.client_filter import ProtocolViolation
from worker.rfb.greeting import Greeting
from worker.rfb.last_frame import LastFrame
from worker.rfb.messages import FRAMEBUFFER_UPDATE
from worker.stream import policy
from worker.stream.limits.clock import BusyMachine, ViewerClock
from worker.stream.policy import (
    INPUT_MAX_BYTES,
    PING_S,
    RELEASE_S,
    SILENT_S,
    Limit,
    ViewerState,
    decide,
)
from worker.stream.websocket import MessageTooLarge, PeerGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.rfb.client_filter import ClientFilter
    from worker.stream.limits.shares import Share
    from worker.stream.websocket import ViewerSocket

_RECEIVE_BYTES: Final = 256 * 1024
RECONNECTS_MAX: Final = 20
_ABNORMAL: Final = 1006  # never sent: RFC 6455's code for an end without a Close frame


class Viewer:
    """A connected viewer. `run` is called by its thread; `end` may be called by any.

    Args:
        client: The viewer's WebSocket; the caller closes its connection.
        server: The non-blocking connection to x11vnc, closed at the end of `run`.
        rfb: The filter for what the viewer sends.
        reconnect: Returns another connection to x11vnc, None if there is none. It is called when
            x11vnc has closed the first one unused: in x11vnc, accept(2) fails at times
            (`accept_unix` in its inet.c does not set the length of the address).
        on_first_frame: Called once, when the first framebuffer update arrives from x11vnc.
        on_display_lost: Called once, when x11vnc has closed its connection; `end` follows.
        share: Its share of x11vnc's time; None for no limit.
        ping_s: The viewer is pinged after so long without activity.
        silent_s: It is disconnected after so long without activity.
        monotonic: The time in seconds.

    Attributes:
        limit: The limit that it has exceeded; None if it was not disconnected for that.
    """

    def __init__(  # noqa: PLR0913 - the limits have defaults; tests set shorter ones
        self,
        client: ViewerSocket,
        server: socket.socket,
        rfb: ClientFilter,
        on_first_frame: Callable[[], None] = lambda: None,
        *,
        reconnect: Callable[[], socket.socket | None] = lambda: None,
        on_display_lost: Callable[[], None] = lambda: None,
        share: Share | None = None,
        ping_s: float = PING_S,
        silent_s: float = SILENT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._server = server
        self._rfb = rfb
        self._on_first_frame: Callable[[], None] | None = on_first_frame
        self._reconnect = reconnect
        self._reconnects_left = RECONNECTS_MAX
        self._on_display_lost = on_display_lost
        self._greeting = Greeting()
        self._to_server = bytearray()
        self.limit: Limit | None = None
        self._requests_held = False
        self._full_requests = 0
        self._share = share
        self._clock = AttendedClock(monotonic)
        began_at = self._clock()
        self._viewer_clock = ViewerClock(began_at, BusyMachine().patience)
        self._state = ViewerState(began_at=began_at, ping_s=ping_s, silent_s=silent_s)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()  # for the requested close and the life of `_wake`

    @property
    def sent_bytes(self) -> int:
        """How much was sent to this viewer so far."""
        return self._client.sent_bytes

    def end(self, close: Close) -> None:
        """End the stream with this close code and reason; the first ones given are kept."""
        with self._lock:
            self._state.request_close(close)
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def run(self) -> Close:
        """Forward until the end; return the close code and reason with which it ended.

        1006 stands for an end without a Close frame.
        """
        try:
            return self._run()
        except PeerGone as error:
            closing = isinstance(self._state.phase, policy.Closing)
            if closing and not self._client.pending_bytes:  # it has received our Close frame
                return self._closed()
            return Close(code=_ABNORMAL, reason=str(error))
        finally:
            self._release_input()
            self._server.close()
            with self._lock:
                os.close(self._wake)
                self._wake = -1

    def _run(self) -> Close:
        state = self._state
        while True:
            now = self._clock()
            self._observe(now)
            action = decide(now, state)
            match action:
                case policy.Forward(timeout_s=timeout_s):
                    self._forward(timeout_s)
                case policy.Ping():
                    self._client.queue_ping()
                    state.pinged_at = now
                case policy.AwaitLastFrame():
                    self._await_last_frame(now)
                case policy.StopForwarding(close=close, limit=limit):
                    self.limit = limit or self.limit
                    state.phase = policy.Flushing(since=now, close=close)
                case policy.Drain(timeout_s=timeout_s):
                    self._drain(timeout_s)
                case policy.SendClose(close=close):
                    self._client.drop_unsent()
                    self._client.queue_close(close)
                    state.phase = policy.Closing(since=now)
                case policy.Disconnect(limit=limit):
                    self.limit = limit
                    raise PeerGone(limit)
                case policy.Finish():
                    return self._closed()
                case _:
                    assert_never(action)

    def _observe(self, now: float) -> None:
        client, rfb, state = self._client, self._rfb, self._state
        is_read = self._is_read
        if not is_read:
            state.unread_at = now
        state.awaits_frame = rfb.requests.awaits_frame
        state.due_at = self._due_at(now)
        state.close_received = client.close_received
        state.viewer_now = self._viewer_clock(now)
        state.observe(
            now,
            pending_bytes=client.pending_bytes,
            read_bytes=client.acknowledged_bytes if client.pending_bytes else client.sent_bytes,
            received_bytes=client.received_bytes,
            completed=rfb.completed,
            in_handshake=is_read and rfb.handshakes < self._greeting.prompts,
            partial=is_read and (rfb.mid_message or client.mid_message),
        )

    @property
    def _is_read(self) -> bool:
        """Whether more is read from the viewer now."""
        return len(self._to_server) < INPUT_MAX_BYTES and not self._rfb.paused

    def _due_at(self, now: float) -> float | None:
        due_at = self._rfb.due_at(now)
        overdrawn_s = self._share.overdrawn_s() if self._share is not None else 0.0
        if not overdrawn_s:
            return due_at
        return min(due_at or now + overdrawn_s, now + overdrawn_s)

    def _closed(self) -> Close:
        return self._client.closed_with or Close(code=_ABNORMAL, reason="")

    # -- forwarding

    def _forward(self, timeout_s: float) -> None:
        ready = self._wait(timeout_s)
        if self._wake in ready:
            os.eventfd_read(self._wake)
        if self._server.fileno() in ready:
            self._from_server()
        if self._client.fileno() in ready:
            self._from_client()
        self._flush_client()
        self._pass_requests()
        self._flush_server()

    def _wait(self, timeout_s: float) -> set[int]:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        mask = select.POLLIN if self._is_read else 0
        poll.register(
            self._client.fileno(), mask | (select.POLLOUT if self._client.pending_bytes else 0)
        )
        if self._state.server_lost_at is None:
            writes = self._to_server and self._greeting.has_begun
            poll.register(self._server.fileno(), select.POLLIN | (select.POLLOUT if writes else 0))
        wanted = select.POLLIN | select.POLLHUP | select.POLLERR
        return {fd for fd, event in poll.poll(timeout_s * 1000) if event & wanted}

    def _from_server(self) -> None:
        state = self._state
        data = self._receive_from_server()
        if not data:
            return
        state.server_sent_at = now = self._clock()
        state.frame_began = True
        self._rfb.requests.server_sent()
        if self._share is not None:
            self._share.served()
        if state.last_frame is not None:
            state.last_frame.server_sent(now)
            self._request_last_frame(state.last_frame)
        for message in self._greeting.from_server(data):
            self._client.queue_message(message)
        if self._on_first_frame and self._rfb.requests.passed and data[0] == FRAMEBUFFER_UPDATE:
            self._on_first_frame()
            self._on_first_frame = None

    def _receive_from_server(self) -> bytes:
        """Return what x11vnc has sent; empty if that is nothing, or if x11vnc is lost."""
        try:
            data = self._server.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data and not self._is_connected_again():
            self._state.server_lost_at = self._clock()
            self._on_display_lost()
        return data

    def _is_connected_again(self) -> bool:
        """Replace a connection that x11vnc has closed before it sent anything."""
        if self._greeting.has_begun or not self._reconnects_left:
            return False
        self._reconnects_left -= 1
        again = self._reconnect()
        if again is None:
            return False
        self._server.close()
        self._server = again
        return True

    def _from_client(self) -> None:
        state, client = self._state, self._client
        frames_before, bytes_before = client.received_frames, client.received_bytes
        try:
            messages = client.receive()
            state.active_at = now = self._clock()
            work = client.received_frames - frames_before
            work += (client.received_bytes - bytes_before) // policy.WORK_BYTES
            self._rfb.charge(work, now)
            for message in messages:
                self._to_x11vnc(self._rfb.feed(message, now))
                for waiting in self._greeting.from_viewer(message):
                    client.queue_message(waiting)
        except (ProtocolViolation, MessageTooLarge):
            self._on_violation()
        if client.close_queued:
            state.phase = policy.Closing(since=self._clock())

    def _on_violation(self) -> None:
        if self._state.requested_close is None:
            self.limit = Limit.PROTOCOL
        self.end(PROTOCOL_VIOLATION)

    def _to_x11vnc(self, data: bytes) -> None:
        self._to_server += data
        if self._rfb.requests.full_passed != self._full_requests:
            self._full_requests = self._rfb.requests.full_passed
            self._state.frame_began = False

    def _flush_client(self) -> None:
        if self._client.pending_bytes and self._client.flush() and self._client.pending_bytes:
            self._state.active_at = self._clock()  # it reads, but may not have our ping yet

    def _pass_requests(self) -> None:
        """Hold the viewer's update requests back, or pass those that can be answered now."""
        now, requests = self._clock(), self._rfb.requests
        pending_bytes = self._client.pending_bytes
        self._requests_held = policy.holds_requests(pending_bytes, held=self._requests_held)
        overdrawn = self._share is not None and self._share.overdrawn_s() > 0
        requests.hold(held=self._requests_held or overdrawn)
        if requests.awaits_frame and not pending_bytes and self._state.frame_is_sent(now):
            requests.frame_sent()
        try:
            self._to_x11vnc(self._rfb.advance(now))
        except ProtocolViolation:
            self._on_violation()

    def _flush_server(self) -> None:
        if not self._to_server or self._state.server_lost_at is not None:
            return
        if not self._greeting.has_begun:  # it would be lost with a connection that is replaced
            return
        try:
            sent = self._server.send(self._to_server)
        except BlockingIOError:
            return
        except OSError:
            return  # x11vnc is gone; the next read finds that too
        del self._to_server[:sent]

    # -- the end

    def _await_last_frame(self, now: float) -> None:
        request = bool(self._rfb.requests.passed) and not self._client.pending_bytes
        self._state.last_frame = LastFrame(now, request=request)
        self._request_last_frame(self._state.last_frame)

    def _request_last_frame(self, last_frame: LastFrame) -> None:
        if last_frame.needs_request:
            self._to_server += self._rfb.requests.last_frame_requests()

    def _drain(self, timeout_s: float) -> None:
        """Send and receive once, and discard what is received.

        The viewer's data must be read to the end: closing a socket with unread data makes the
        kernel reset the connection, and the Close frame is lost. x11vnc's data must be read too:
        x11vnc waits, and serves no other viewer, while it cannot send the rest of an update.
        """
        client = self._client
        poll = select.poll()
        poll.register(
            client.fileno(),
            (0 if client.close_received else select.POLLIN)
            | (select.POLLOUT if client.pending_bytes else 0),
        )
        if self._state.server_lost_at is None:
            poll.register(self._server.fileno(), select.POLLIN)
        if self._server.fileno() in dict(poll.poll(timeout_s * 1000)):
            self._receive_from_server()
        client.flush()
        if not client.close_received:
            with contextlib.suppress(MessageTooLarge):
                client.receive()

    def _release_input(self) -> None:
        """Release the keys and buttons that a leaving controller holds; x11vnc does not."""
        events = self._rfb.release_input()
        if not events or self._state.server_lost_at is not None:
            return
        deadline = time.monotonic() + RELEASE_S
        with contextlib.suppress(OSError):
            self._server.settimeout(RELEASE_S)
            self._server.sendall(bytes(self._to_server) + events)
            self._server.shutdown(socket.SHUT_WR)
            # Until x11vnc has read everything and closes: if this side closed first, x11vnc could
            # get a broken pipe before it has read what is queued.
            while time.monotonic() < deadline and self._server.recv(_RECEIVE_BYTES):
                pass
