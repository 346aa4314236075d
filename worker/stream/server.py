"""The stream server: who watches, who may come in, and the end for all of them.

One thread accepts and listens to the session; each request, and so each viewer, has its own
(websockify's server forks instead, so that nothing could be counted or used up).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
import traceback
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.outcome import DISPLAY_LOST, DISPLAY_RESTARTING, Close
from worker.stream import messages
from worker.stream.acceptor import Acceptor, refuse
from worker.stream.handler import StreamHandler
from worker.stream.messages import PACKET_MAX_BYTES, State, StreamConfig
from worker.stream.metrics.counters import Counts, Numbers, SessionFacts
from worker.stream.refusals import (
    BAD_TOKEN,
    CONTROL_TAKEN,
    NOT_RUNNING,
    TOO_MANY_VIEWERS,
    Refusal,
)
from worker.stream.token_plugin import StreamTokenPlugin
from worker.stream.tokens import Grant, InvalidToken, Role, mint, stream_url
from worker.trusted_proxies import TrustedProxies
from worker.vnc.idle_suspend import IdleSuspend

if TYPE_CHECKING:
    from worker.stream.metrics.exposition import Exposition
    from worker.stream.viewer import Viewer

REQUEST_THREADS_MAX: Final = 128
GOODBYE_S: Final = 2.0
CONTROL_START_S: Final = 5.0
RETRY_AFTER_S: Final = 5
_LAST_ANSWERS_S: Final = 1.0
_TICK_S: Final = 1.0
_FINE_TICK_S: Final = 0.01


class ViewerSlot:
    """One viewer's place, from its admission on: an end that comes early still reaches it."""

    def __init__(self, number: int, role: Role, address: str) -> None:
        self.number, self.role, self.address = number, role, address
        self._lock = threading.Lock()
        self._viewer: Viewer | None = None
        self._close: Close | None = None

    def attach(self, viewer: Viewer) -> None:
        """The handshake is done."""
        with self._lock:
            self._viewer = viewer
            if self._close is not None:
                viewer.end(self._close)

    @property
    def sent_bytes(self) -> int:
        """How much the viewer was sent so far."""
        return self._viewer.sent_bytes if self._viewer is not None else 0

    def end(self, close: Close) -> None:
        """Tell the viewer that the stream is over."""
        with self._lock:
            self._close = self._close or close
            if self._viewer is not None:
                self._viewer.end(close)


class StreamServer:
    """What websockify's handler calls its server."""

    def __init__(
        self,
        config: StreamConfig,
        state: State,
        listener: socket.socket,
        channel: socket.socket,
    ) -> None:
        self.config = config
        self.state = state
        self.token_plugin = StreamTokenPlugin(
            config.task_id,
            bytes.fromhex(config.key_hex),
            {Role.VIEW: config.x11vnc_socket, Role.CONTROL: config.x11vnc_control_socket},
        )
        self.proxies = TrustedProxies(config.trusted_proxies)
        self.ws_connection = False  # websockify's handler sets it
        self._lock = threading.Lock()
        self._slots: dict[int, ViewerSlot] = {}
        self._slots_given = 0
        self.counts = Counts()
        self._left_sent_bytes = 0  # to viewers that are gone
        self._facts = SessionFacts(lambda: self._tell(messages.pack("facts.wanted")))
        self._exposition: Exposition | None = None
        self._requests: set[threading.Thread] = set()
        self._channel = channel
        self._session_gone = False
        self._over = False  # nobody will listen any more
        self._terminated = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._display_up = True
        self._idle_suspend = IdleSuspend()
        self._control_up = False
        self._control_answered = threading.Event()
        self._leave_by: float | None = None
        self._epoll = select.epoll()
        self._epoll.register(channel.fileno(), select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._acceptor = Acceptor(listener, self._epoll, self._start_request, self.refused)

    # -- for the handler's threads

    @property
    def ready(self) -> bool:
        """Whether viewers can connect now."""
        return self.state is State.RUNNING and self._display_up

    def admit(self, grant: Grant, address: str) -> ViewerSlot:
        """Give a viewer a slot and use its token up; whom it refuses keeps the token.

        Control is one slot, besides those for viewers: a full house can still be helped.

        Raises:
            Refusal: 401, 409, 503.
        """
        with self._lock:
            if self.state is not State.RUNNING:
                raise Refusal(HTTPStatus.CONFLICT, NOT_RUNNING)
            taken = sum(slot.role is grant.role for slot in self._slots.values())
            if grant.role is Role.CONTROL and taken:
                raise Refusal(HTTPStatus.CONFLICT, CONTROL_TAKEN)
            if taken >= self.config.max_viewers:
                retry = {"Retry-After": str(RETRY_AFTER_S)}
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, TOO_MANY_VIEWERS, retry)
            try:
                self.token_plugin.spend(grant)
            except InvalidToken:
                raise Refusal(HTTPStatus.UNAUTHORIZED, BAD_TOKEN) from None
            self._slots_given += 1
            slot = ViewerSlot(self._slots_given, grant.role, address)
            self._slots[slot.number] = slot
            self._idle_suspend.wake()
        self.counts.admitted(str(grant.role))
        self._tell(messages.pack("token.used", jti=grant.jti, expires_at=grant.expires_at))
        return slot

    def wait_for_display(self) -> None:
        """Return when x11vnc shows changes to who connects to it, if that is soon."""
        time.sleep(self._idle_suspend.wait_s())

    def start_control(self) -> bool:
        """Have the controller's x11vnc started; whether it can be connected to, in time."""
        self._control_answered.clear()  # there is one controller, so nobody else waits for it
        self._tell(messages.pack("control.wanted"))
        return self._control_answered.wait(CONTROL_START_S) and self._control_up

    def leave(self, slot: ViewerSlot) -> None:
        """The viewer is gone."""
        with self._lock:
            self._left_sent_bytes += slot.sent_bytes
            if slot.role is Role.CONTROL:  # before the next one can say that it wants it
                self._tell(messages.pack("control.left"))
            self._slots.pop(slot.number, None)
            self._idle_suspend.wake()  # it may go to sleep in a while
        os.eventfd_write(self._wake, 1)

    def refused(self, address: tuple[str, int], status: int, role: Role | None = None) -> None:
        """A request was refused; `role` is its good token's, if it had one."""
        self.counts.refused(status)
        known = {} if role is None else {"role": str(role)}
        self.emit("viewer.refused", address=address[0], **known, status=status)

    def emit(self, name: str, **fields: Any) -> None:
        """Hand an event to the session, which writes all events."""
        self._tell(messages.pack("event", name=name, fields=fields))

    def metrics(self) -> tuple[bytes, str]:
        """The numbers for Prometheus, and their media type."""
        # Loaded for those who ask: 20 ms and 2 MB that a viewer's start need not wait for.
        from worker.stream.metrics import exposition  # noqa: PLC0415

        if self._exposition is None:
            self._exposition = exposition.Exposition(self._numbers)
        return self._exposition.text(), exposition.MEDIA_TYPE

    def _numbers(self) -> Numbers:
        facts = self._facts.get()
        with self._lock:
            slots = list(self._slots.values())
            sent_bytes = self._left_sent_bytes + sum(slot.sent_bytes for slot in slots)
        roles = [str(slot.role) for slot in slots]
        return self.counts.numbers(
            state=str(self.state),
            viewers={role: roles.count(role) for role in roles},
            sent_bytes=sent_bytes,
            facts=facts,
        )

    def debug_stream_url(self, host: str, role: Role) -> str | None:
        """A fresh URL for the debug page; None while the task is not running."""
        if self.state is not State.RUNNING:
            return None
        token = mint(bytes.fromhex(self.config.key_hex), self.config.task_id, role)
        return stream_url(f"ws://{host}", self.config.task_id, token)

    def debug_state(self) -> dict[str, Any]:
        """What the debug page's header shows."""
        with self._lock:
            roles = [slot.role for slot in self._slots.values()]
        return {
            "task_id": self.config.task_id,
            "target": self.config.target,
            "state": str(self.state),
            "started_at": self.config.started_at,
            "controller": Role.CONTROL in roles,
            "viewers": len(roles),
        }

    # -- the main thread

    def serve(self) -> None:
        """Serve until the session or a signal says to quit, and every viewer was told."""
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._tell(messages.pack("listening"))
        while not self._done():
            reported = [descriptor for descriptor, _ in self._epoll.poll(self._tick())]
            for descriptor in reported:
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                    self._on_wake()
                elif descriptor == self._channel.fileno():
                    self._on_session()
                else:
                    self._acceptor.handle(descriptor)
        self._on_session()
        if self._over:
            self._acceptor.close("409 Conflict", NOT_RUNNING)
        self._finish_requests()

    def _on_wake(self) -> None:
        if self._terminated:
            self._on_session()
            if not self._over:  # who knocks from now on is for the next server
                self._acceptor.leave("503 Service Unavailable", DISPLAY_RESTARTING.reason)
            self._quit(DISPLAY_RESTARTING)
        self._on_leave()

    def _tick(self) -> float:
        """Do what is due; the seconds until more may be."""
        waits = [_TICK_S if self._leave_by is None else _FINE_TICK_S, self._acceptor.expire()]
        if self.state is State.RUNNING:
            with self._lock:
                waits.append(None if self._slots else self._idle_suspend.tick())
        return min(wait for wait in waits if wait is not None)

    def _done(self) -> bool:
        if self._leave_by is None:
            return False
        return not self._slots or time.monotonic() > self._leave_by

    def _on_terminate(self, *_: object) -> None:
        """Supervisord, or somebody with supervisorctl, stops this server.

        The loop does what there is to do: it may hold any lock at this moment.
        """
        self._terminated = True
        os.eventfd_write(self._wake, 1)

    def _on_session(self) -> None:
        """Take all that the session has said so far."""
        while not self._session_gone:
            try:
                packet = self._channel.recv(PACKET_MAX_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if packet:
                self._on_message(messages.unpack(packet))
            else:  # the display is gone with it
                self._session_gone = self._over = True
                self._epoll.unregister(self._channel.fileno())
                self._quit(DISPLAY_LOST)

    def _on_message(self, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "state":
                self.state = State(message["state"])
            case "display":
                self._display_up = message["up"]
                self._idle_suspend.use(message["pid"])
            case "display.blind":
                self._idle_suspend.skip_blind()
            case "control":
                self._control_up = message["up"]
                self._control_answered.set()
            case "end":
                self._end(Close(code=message["code"], reason=message["reason"]))
                self._on_leave()
            case "facts":
                self._facts.arrived(message)
            case "quit":
                self._over = True
                self._quit(DISPLAY_LOST)

    def _end(self, close: Close) -> None:
        with self._lock:
            self.state = State.ENDING
            self._idle_suspend.wake()
            slots = list(self._slots.values())
        for slot in slots:
            slot.end(close)

    def _quit(self, close: Close) -> None:
        if self._leave_by is None:
            self._leave_by = time.monotonic() + GOODBYE_S
            self._end(close)

    def _on_leave(self) -> None:
        if self.state is State.ENDING and not self._slots:
            self._tell(messages.pack("viewers.gone"))

    def _start_request(
        self, connection: socket.socket, address: tuple[str, int], accepted_at: float
    ) -> None:
        self._on_session()  # first: whoever it has told that the stream is ready is let in
        self._requests = {thread for thread in self._requests if thread.is_alive()}
        if len(self._requests) - len(self._slots) >= REQUEST_THREADS_MAX:
            self._refuse_for_now(connection, address)
            return
        thread = threading.Thread(
            target=self._handle,
            args=(connection, address, accepted_at),
            name="request",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            self._refuse_for_now(connection, address)
            return
        self._requests.add(thread)

    def _refuse_for_now(self, connection: socket.socket, address: tuple[str, int]) -> None:
        refuse(connection, "503 Service Unavailable", "too many requests")
        self.refused(address, HTTPStatus.SERVICE_UNAVAILABLE)

    def _handle(
        self, connection: socket.socket, address: tuple[str, int], accepted_at: float
    ) -> None:
        try:
            StreamHandler(connection, address, self, accepted_at)
        except Exception as error:  # a defect of ours costs one request, no more
            # Not the error's text: it may quote the request, and so the token.
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            self.emit("request.failed", error=type(error).__name__, where=where)

    def _finish_requests(self) -> None:
        deadline = time.monotonic() + _LAST_ANSWERS_S
        for thread in self._requests:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _tell(self, packet: bytes) -> None:
        try:
            self._channel.send(packet)
        except OSError:
            return  # the session is gone; the main thread sees it too
