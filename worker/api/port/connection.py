"""One connection: uvicorn's protocol, behind limits that it does not have.

    Head ── complete ──▶ Body ── complete ──▶ Answer ── sent ──▶ Head
      │                   │                     │
      └──── refused, or the connection is not to be used again ──▶ Closing

The head is collected here, up to its limit, and parsed when it is complete; then the request is
sorted, and refused or served. One request is parsed at a time: what the client sends in advance
waits here, up to a limit.
"""

from __future__ import annotations

from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from worker.api.authentication import BODY_MAX_BYTES, PROTECTED_PREFIX
from worker.api.port.head import BadHead, HeadBuffer
from worker.api.port.lanes import Waiting
from worker.api.port.table import Use
from worker.api.port.transport import LINGER_S, LingeringTransport
from worker.stream.limits.pace import Pace
from worker.stream.port.answers import refusal

if TYPE_CHECKING:
    from collections.abc import Hashable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from worker.api.port.lanes import Lanes
    from worker.api.port.port import Port

BODY_WIRE_MAX_BYTES: Final = 2 * BODY_MAX_BYTES  # of chunks, with their framing and trailers
AHEAD_MAX_BYTES: Final = 64 * 1024
_TOO_MANY: Final = "too many requests"
_TOO_MANY_CONNECTIONS: Final = "too many connections"


class _Phase(Enum):
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    CLOSING = auto()


class _EndOfBody(Exception):
    """Stops the parser after a body in chunks, whose end only it finds."""


class Connection(HttpToolsProtocol):
    """A connection to the API's port, an `Entry` of its table."""

    transport: LingeringTransport  # type: ignore[assignment]  # it has all that uvicorn uses

    def __init__(self, port: Port, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self.owner: str | None = None
        self._port = port
        self._phase = _Phase.HEAD
        self._deadline: float | None = None
        self._pace: Pace | None = None
        self._peer = self._address = ""
        self._has_key = False
        self._ahead = HeadBuffer()  # the next head, and what was sent in advance
        self._app: ASGIApp | None = None  # to be started for the head that was parsed
        self._body_left_bytes: int | None = 0  # None: in chunks
        self._body_wire_bytes = 0
        self._head_parsed = self._message_complete = False

    # -- asyncio's callbacks

    def connection_made(self, transport: Any) -> None:
        super().connection_made(LingeringTransport(transport, self.loop))  # type: ignore[arg-type]
        self._peer = self._address = self.client[0] if self.client else ""
        self.owner = self._port.owner_of(self._peer)
        self._deadline = self._port.clock() + self._port.limits.head_timeout_s
        if not self._port.opened(self):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, _TOO_MANY_CONNECTIONS, lingers=False)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._phase = _Phase.CLOSING
        self._port.table.remove(self)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            self.transport.discard(data)
        elif self._phase is _Phase.HEAD:
            self._ahead.add(data)
            self._read_head()
        elif self._phase is _Phase.BODY:
            self._feed_body(data)
        else:
            self._keep_ahead(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio allows both
        """The client has ended its side; it may still wait for its answer."""
        if self._phase is not _Phase.ANSWER or self.transport.is_closing():
            return False
        self.cycle.keep_alive = False
        self.transport.peer_ended = True
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._port.table.stalled(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._port.table.resumed(self)

    def shutdown(self) -> None:
        """The server stops; uvicorn calls this."""
        if self._phase is _Phase.HEAD and self._deadline is not None:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the API is stopping", lingers=False)
        else:
            super().shutdown()

    # -- the head

    def _read_head(self) -> None:
        try:
            taken = self._ahead.take()
        except BadHead as bad:
            self._refuse(bad.status, bad.detail)
            return
        if taken is None:
            if self._deadline is None:
                self._deadline = self._port.clock() + self._port.limits.head_timeout_s
            return
        head, rest = taken
        self._phase = _Phase.BODY
        self._deadline = self._port.clock() + self._port.limits.body_timeout_s
        self.transport.lingers = True
        self._head_parsed = self._message_complete = False
        self._app = None
        self._body_left_bytes, self._body_wire_bytes = 0, 0
        if not self._feed(head) or self._app is None:
            self._refuse(HTTPStatus.BAD_REQUEST, "Invalid HTTP request")
            return
        self._after_feed()
        self._decide(self._app, rest)

    def _feed(self, data: bytes) -> bool:
        """Parse; False if it is not HTTP."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.cycle.keep_alive = False  # what follows would be another protocol
        except httptools.HttpParserError:
            return self._message_complete  # by _EndOfBody
        return True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_parsed:  # the fields of trailers are ignored
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head_parsed = True
        for name, value in self.headers:
            if name == b"content-length":
                self._body_left_bytes = int(value)
            elif name == b"transfer-encoding":
                self._body_left_bytes = None
                self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Note the app: the request is started after its head was parsed."""
        del cycle
        self._app = app

    # -- the decision

    def _decide(self, app: ASGIApp, rest: bytes) -> None:
        """Refuse the request, or serve it, now or later."""
        port, scope = self._port, self.scope
        found = port.triage.sort(
            scope["method"], scope["path"], self.headers, peer=self._peer, now=self.loop.time()
        )
        self._address = found.address
        self._has_key = found.has_key
        if not found.allowed:
            answer = port.probes.latest(scope["path"]) if found.probe else None
            if answer is not None:
                self._finish(answer)
                return
            if not found.probe:
                self._refuse(HTTPStatus.TOO_MANY_REQUESTS, _TOO_MANY)
                return
        if (self._body_left_bytes or 0) > BODY_MAX_BYTES:
            self.cycle.keep_alive = False
            if not scope["path"].startswith(PROTECTED_PREFIX):  # else the app, after the key
                self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")
                return
        if found.probe:
            app = port.probes.recording(app)
        self._enter_lane(app, found.client)
        if rest and not self.transport.is_closing():
            (self._feed_body if self._phase is _Phase.BODY else self._keep_ahead)(rest)

    def _enter_lane(self, app: ASGIApp, client: Hashable) -> None:
        cycle = self.cycle

        def start() -> bool:
            if not cycle.disconnected:
                served = _leaving_lane(app, self._port.lanes, client)
                super(Connection, self)._start_asgi_task(cycle, served)  # type: ignore[arg-type]
            return not cycle.disconnected

        def refuse() -> None:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS, _TOO_MANY)

        self._port.lanes.enter(client, Waiting(start, refuse))

    # -- the body

    def _feed_body(self, data: bytes) -> None:
        ahead = b""
        if self._body_left_bytes is None:
            self._body_wire_bytes += len(data)
            if self._body_wire_bytes > BODY_WIRE_MAX_BYTES:
                self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")
                return
        else:
            data, ahead = data[: self._body_left_bytes], data[self._body_left_bytes :]
            self._body_left_bytes -= len(data)
        if not self._feed(data):
            self._refuse(HTTPStatus.BAD_REQUEST, "Invalid HTTP request")
            return
        self._after_feed()
        if ahead and not self.transport.is_closing():
            self._keep_ahead(ahead)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._message_complete = True
        if self._body_left_bytes is None and self._head_parsed:
            raise _EndOfBody

    def _after_feed(self) -> None:
        if self._message_complete:
            self._phase = _Phase.ANSWER
            self._deadline = None
            self.transport.lingers = False
            if self.cycle.response_complete and not self.transport.is_closing():
                self._next_request()

    # -- the answer, and what was sent in advance

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._phase is _Phase.ANSWER and not self.transport.is_closing():
            self._next_request()

    def _next_request(self) -> None:
        self._phase = _Phase.HEAD
        self._head_parsed = False
        if len(self._ahead):
            self._unset_keepalive_if_required()
            self.loop.call_soon(self._read_ahead)

    def _read_ahead(self) -> None:
        if self._phase is _Phase.HEAD and not self.transport.is_closing():
            self._read_head()

    def _keep_ahead(self, data: bytes) -> None:
        """Keep what was sent before the answer; too much of it is discarded with the connection."""
        if self._phase is _Phase.HEAD:
            self._ahead.add(data)
            self._next_request()
            return
        self.flow.pause_reading()
        if self.transport.lingers:
            return
        self._ahead.add(data)
        if len(self._ahead) > AHEAD_MAX_BYTES:
            self._ahead.clear()
            self.cycle.keep_alive = False
            self.transport.lingers = True

    # -- the end

    def _refuse(self, status: HTTPStatus, detail: str, *, lingers: bool = True) -> None:
        """Answer with an error, in place of the app, and close.

        Args:
            status: of the answer.
            detail: for its JSON body.
            lingers: whether to wait for the peer, if it may still be sending.
        """
        if self.transport.is_closing():
            return
        self._port.refused(self._address, status)
        is_head = self._head_parsed and self.scope["method"] == "HEAD"
        self.transport.lingers |= self._phase is _Phase.HEAD
        self.transport.lingers &= lingers
        self._finish(refusal(status, detail, head=is_head))

    def _finish(self, answer: bytes) -> None:
        """Send an answer in place of the app's, unless that has begun, and close."""
        begun = False
        if self._head_parsed:
            begun = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not begun:
            self.transport.write(answer)
        self._phase = _Phase.CLOSING
        self._deadline = None
        self._unset_keepalive_if_required()
        self.transport.close()

    def check(self, now: float) -> None:
        transport = self.transport
        unsent_bytes = transport.unsent_bytes
        if unsent_bytes or self._pace is not None:
            self._pace = self._pace or Pace(window_s=self._port.limits.stalled_s)
            read_bytes = transport.written_bytes - unsent_bytes
            self._pace.observe(now, pending=unsent_bytes > 0, read_bytes=read_bytes)
            if self._pace.too_slow(now):
                transport.abort()
                return
        if transport.closed_at is not None:
            if self.loop.time() - transport.closed_at >= LINGER_S:
                transport.finish()
        elif self._deadline is not None and now >= self._deadline:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")

    # -- for the table of connections

    @property
    def use(self) -> Use:
        if self.transport.is_closing():
            return Use.INCOMPLETE
        if self.transport.unsent_bytes and not self._has_key:
            return Use.SENDING
        if self._phase is _Phase.ANSWER or self.transport.unsent_bytes:
            return Use.BUSY
        if self._deadline is not None:
            return Use.INCOMPLETE
        return Use.IDLE_ACCOUNT if self._has_key else Use.IDLE

    def evict(self) -> None:
        if self.transport.is_closing() or self.transport.unsent_bytes:
            self.transport.abort()
        elif self._deadline is None:  # it waits for the next request
            self.transport.close()
        else:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, _TOO_MANY_CONNECTIONS, lingers=False)

    def abort(self) -> None:
        self.transport.abort()


def _leaving_lane(app: ASGIApp, lanes: Lanes, client: Hashable) -> ASGIApp:
    """The app, which leaves its lane when the answer begins: the rest costs little time."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        entered = True

        async def send_and_leave(message: Message) -> None:
            nonlocal entered
            await send(message)
            if entered:
                entered = False
                lanes.leave(client)

        try:
            await app(scope, receive, send_and_leave)
        finally:
            if entered:
                lanes.leave(client)

    return served
