"""The stream server's process: `python -m worker.stream.server SOCKET`, run by supervisord.

The main thread accepts connections, receives the session's messages, and answers probes and
refused requests. Each other request, and so each viewer, has its own thread (websockify's own
server forks a process instead, in which tokens, slots and counters could not be shared).
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import threading
import time
import traceback
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

from worker.attended.clock import AttendedClock
from worker.close_codes import DISPLAY_LOST, DISPLAY_RESTARTING, Close
from worker.linux import hide_from_peers, return_memory
from worker.stream.acceptor import Acceptor
from worker.stream.handler import StreamHandler
from worker.stream.messages import (
    DisplayChanged,
    DisplayReady,
    DisplayRestarting,
    End,
    Facts,
    FromSession,
    Listening,
    Quit,
    ServerRestarting,
    State,
    StateChanged,
    Terminated,
    ViewersGone,
    receive_configuration,
)
from worker.stream.port.answers import encode, refusal, send
from worker.stream.port.refusal_log import RefusalLog
from worker.stream.port.requests import RequestThreads
from worker.stream.port.triage import Kind, RequestLimits, Triage
from worker.stream.refusals import NOT_RUNNING
from worker.stream.service import StreamService
from worker.stream.session_channel import SessionChannel, connect

if TYPE_CHECKING:
    import socket

    from worker.stream.port.triage import Request

CLOSING_S: Final = 2.0  # for the viewers' closing handshakes
_LAST_ANSWERS_S: Final = 1.0
_REASON_S: Final = 0.5  # after SIGTERM: for the session to answer why
_TICK_S: Final = 1.0  # a signal just before epoll_wait(2) is handled after this time at the latest
_CLOSING_TICK_S: Final = 0.01


class StreamServer:
    """Serves viewers on one listening socket."""

    def __init__(
        self,
        service: StreamService,
        listener: socket.socket,
        session: SessionChannel,
        limits: RequestLimits | None = None,
    ) -> None:
        self._service = service
        self._session = session
        self._triage = Triage(service, limits or RequestLimits.default())
        self._threads = RequestThreads()
        self._refusals = RefusalLog(service.report_refused)
        self._clock = AttendedClock()
        self._session_ended = False
        self._final = False  # no other stream server will follow
        self._terminated = False
        self._restart_at: float | None = None
        self._quit_by: float | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(session.fileno(), select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)
        service.on_reserve = self._threads.became_viewer
        service.on_release = lambda: os.eventfd_write(self._wake, 1)  # the last viewer may be gone
        self._acceptor = Acceptor(
            listener, self._epoll, self._start_request, self._refused, clock=self._clock
        )

    def serve(self) -> None:
        """Serve until the session or SIGTERM ends it, and every viewer is closed."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._session.send(Listening())
        while not self._done():
            for descriptor, _ in self._epoll.poll(self._poll_timeout_s()):
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                    self._on_wake()
                elif descriptor == self._session.fileno():
                    self._receive()
                else:
                    self._acceptor.handle(descriptor)
            self._refusals.flush(time.monotonic())
        self._receive()
        if self._final:
            self._acceptor.close(HTTPStatus.CONFLICT, NOT_RUNNING)
        self._refusals.flush(time.monotonic(), everything=True)
        self._threads.join(_LAST_ANSWERS_S)

    def _poll_timeout_s(self) -> float:
        if self._restart_at is not None and self._clock() >= self._restart_at:
            self._quit(DISPLAY_RESTARTING)
        closing = self._quit_by is not None or self._restart_at is not None
        tick_s = _CLOSING_TICK_S if closing else _TICK_S
        self._clock()  # also while it is not needed: it must be read every second
        expires_s = self._acceptor.expire()
        return tick_s if expires_s is None else min(tick_s, expires_s)

    def _done(self) -> bool:
        if self._quit_by is None:
            return False
        return not self._service.admission.slots or self._clock() > self._quit_by

    def _on_sigterm(self, *_: object) -> None:
        """Set a flag only: the main thread may hold any lock when the signal arrives."""
        self._terminated = True
        os.eventfd_write(self._wake, 1)

    def _on_wake(self) -> None:
        if self._terminated:
            self._receive()
            if not self._final:  # new connections stay in the backlog for the next server
                self._acceptor.leave(HTTPStatus.SERVICE_UNAVAILABLE, DISPLAY_RESTARTING.reason)
            if self._restart_at is None:
                self._restart_at = self._clock() + _REASON_S
                self._session.send(Terminated())
        self._report_viewers_gone()

    # -- the session's messages

    def _receive(self) -> None:
        if self._session_ended:
            return
        for message in self._session.receive():
            if message is None:
                self._session_ended = self._final = True
                self._epoll.unregister(self._session.fileno())
                self._quit(DISPLAY_LOST)
            else:
                self._on_message(message)

    def _on_message(self, message: FromSession) -> None:
        service = self._service
        match message:
            case StateChanged(state=state):
                service.admission.state = state
            case DisplayChanged():
                service.display = message
            case DisplayRestarting(viewers=viewers):
                service.admission.end_some(viewers, DISPLAY_RESTARTING)
            case DisplayReady():
                self._session.answer(message)
            case Facts():
                service.facts = message
            case End() | Quit() | ServerRestarting():
                self._on_end(message)
            case _:
                assert_never(message)

    def _on_end(self, message: End | Quit | ServerRestarting) -> None:
        match message:
            case End(close=close):
                self._end(close)
                self._report_viewers_gone()
                if self._restart_at is not None:
                    self._quit(close)
            case Quit():
                self._final = True
                self._quit(DISPLAY_LOST)
            case ServerRestarting():
                self._quit(DISPLAY_RESTARTING)
            case _:
                assert_never(message)

    def _end(self, close: Close) -> None:
        self._service.admission.end(close)
        self._session.cancel_requests()

    def _quit(self, close: Close) -> None:
        if self._quit_by is None:
            self._quit_by = self._clock() + CLOSING_S
            self._end(close)

    def _report_viewers_gone(self) -> None:
        admission = self._service.admission
        if admission.state is State.ENDING and not admission.slots:
            self._session.send(ViewersGone())

    # -- requests

    def _start_request(
        self, connection: socket.socket, address: tuple[str, int], accepted_at: float, head: bytes
    ) -> None:
        self._receive()  # a client that has read `stream.ready` must not be refused
        now = time.monotonic()
        request = self._triage.read(head, address[0], now)
        if request.kind is Kind.PROBE:
            probe = self._service.probe(request.path)
            send(connection, encode(*probe, head=request.head_only))
        elif not self._triage.allows(request, now):
            self._refuse(request, connection, HTTPStatus.TOO_MANY_REQUESTS)
        elif not self._start_thread(request, connection, address, accepted_at):
            self._refuse(request, connection, HTTPStatus.SERVICE_UNAVAILABLE)

    def _start_thread(
        self,
        request: Request,
        connection: socket.socket,
        address: tuple[str, int],
        accepted_at: float,
    ) -> bool:
        return self._threads.start(
            request,
            lambda: self._handle(connection, address, accepted_at),
            len(self._service.admission.slots),
            connection,
        )

    def _handle(
        self, connection: socket.socket, address: tuple[str, int], accepted_at: float
    ) -> None:
        try:
            StreamHandler(connection, address, self._service, accepted_at)
        except Exception as error:  # a defect of ours costs one request, no more
            # Without the error's text, which may quote the request and so the token.
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            self._session.emit("request.failed", error=type(error).__name__, where=where)

    def _refuse(self, request: Request, connection: socket.socket, status: HTTPStatus) -> None:
        send(connection, refusal(status, "too many requests", head=request.head_only))
        self._refused(request.address, status)

    def _refused(self, address: str, status: HTTPStatus) -> None:
        self._service.counters.refused(status)
        self._refusals.add(address, status, time.monotonic())


def main() -> int:
    """Receive the configuration from the session, and serve; the process's exit code."""
    hide_from_peers()
    return_memory()
    # PyJWT imports it if it is installed, 35 ms and 8 MB; HS256 needs none of it.
    sys.modules.setdefault("cryptography", None)  # type: ignore[arg-type]  # as if not installed
    # While this thread waits for the session, and before a viewer needs it.
    importing = threading.Thread(target=importlib.import_module, args=["jwt"], daemon=True)
    importing.start()
    channel = connect(Path(sys.argv[1]))
    received = receive_configuration(channel)
    importing.join()
    if received is None:
        return 1  # the session is ending, or has refused this process
    listener, configure = received
    with listener, channel:
        session = SessionChannel(channel)
        StreamServer(StreamService(configure, session), listener, session).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
