"""The HTTP side of the stream: routes, refusals, and the upgrade to a viewer's WebSocket.

Built on websockify's WebSocketRequestHandler, which recognises an upgrade.
Refusals are HTTP answers with a JSON `detail`.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from worker.display.screen import HEIGHT_PX, WIDTH_PX
from worker.rfb.client_filter import PROTOCOL_VERSION, ClientFilter
from worker.stream.limits.shares import peer_cpu_s
from worker.stream.page import debug, files
from worker.stream.port.triage import ANSWERED_PATHS
from worker.stream.refusals import (
    BAD_TOKEN,
    NOT_RUNNING,
    Refusal,
    display_unavailable,
    parts,
    query_fields,
)
from worker.stream.tokens import Role
from worker.stream.viewer import Viewer
from worker.stream.websocket import SUPPORTED_VERSION, BadHandshake, PeerGone, accept

# After worker.stream.websocket, which keeps numpy out.
from websockify.websocketserver import WebSocketRequestHandler  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.stream.admission import ViewerSlot
    from worker.stream.service import StreamService
    from worker.stream.token_plugin import Target

REQUEST_TIMEOUT_S: Final = 10.0
_STREAM_PATH: Final = re.compile(r"/tasks/(?P<task_id>[^/]+)/websockify")
_LINGER_S: Final = 0.5
_LINGER_MAX_BYTES: Final = 65536
_UNSENT_BYTES: Final = 128 * 1024
_TCP_NOTSENT_LOWAT: Final = 25


class StreamHandler(WebSocketRequestHandler):  # type: ignore[misc]  # websockify is untyped
    """One HTTP request; a viewer's lasts as long as its stream.

    As everywhere in socketserver, the constructor returns when the request is over.

    Args:
        connection: a connection whose request head has arrived.
        address: the peer's.
        service: what all requests share.
        accepted_at: when the connection was accepted, by time.monotonic().
    """

    timeout = REQUEST_TIMEOUT_S
    connection: socket.socket
    client_address: tuple[str, int]
    command: str | None

    def __init__(
        self,
        connection: socket.socket,
        address: tuple[str, int],
        service: StreamService,
        accepted_at: float,
    ) -> None:
        self._service = service
        self._accepted_at = accepted_at
        self._role: Role | None = None
        self._slot: ViewerSlot | None = None
        self._display: socket.socket | None = None
        self._reconnect: Callable[[], socket.socket | None] = lambda: None
        super().__init__(connection, address, None)

    def parse_request(self) -> bool:
        """Parse the head; the client's address is then the one that a trusted proxy reports."""
        parsed: bool = super().parse_request()
        if parsed:
            peer, port = self.client_address
            forwarded = self.headers.get_all("X-Forwarded-For", [])
            self.client_address = self._service.proxies.viewer(peer, forwarded), port
        return parsed

    # -- plain requests

    def do_GET(self) -> None:  # noqa: N802 - http.server's naming
        """Answer a request that is no upgrade."""
        self.close_connection = True
        try:
            self._answer(parts(self.path).path)
        except Refusal as refusal:
            self._refuse(refusal)

    do_HEAD = do_GET  # noqa: N815 - http.server's naming

    def _answer(self, path: str) -> None:
        service = self._service
        if path in ANSWERED_PATHS:  # with a head that the main thread could not read
            self._json(*service.probe(path))
        elif path == "/metrics":
            self._send(HTTPStatus.OK, *service.metrics(), {})
        elif self._is_stream(path):
            raise Refusal(
                HTTPStatus.UPGRADE_REQUIRED,
                "this is a WebSocket address: open it with noVNC",
                {"Upgrade": "websocket"},
            )
        elif service.config.novnc_dir is not None:
            self._answer_debug(path, service.config.novnc_dir)
        else:
            raise Refusal(HTTPStatus.NOT_FOUND, "Not found")

    def _answer_debug(self, path: str, novnc_dir: str) -> None:
        debug.check_host(self.headers)
        if path == "/debug/stream-url":
            debug.check_same_origin(self.headers)
            query = query_fields(self.path)
            try:
                role = Role(query.get("role", [Role.VIEW])[0])
            except ValueError:
                raise Refusal(HTTPStatus.BAD_REQUEST, "role is view or control") from None
            url = self._service.debug_stream_url(str(self.headers["Host"]), role)
            if url is None:
                raise Refusal(HTTPStatus.CONFLICT, NOT_RUNNING)
            self._json(HTTPStatus.OK, {"stream_url": url})
        elif path == "/debug/state":
            debug.check_same_origin(self.headers)
            self._json(HTTPStatus.OK, self._service.debug_state())
        else:
            found = debug.find(path, novnc_dir)
            if found is None:
                raise Refusal(HTTPStatus.NOT_FOUND, "Not found")
            self._send(HTTPStatus.OK, found.content, found.media_type, files.HEADERS)

    # -- a viewer

    def handle_upgrade(self) -> None:
        """Admit the viewer or refuse it with an HTTP answer, then stream until the end."""
        self.close_connection = True
        try:
            self._admit_and_stream()
        except Refusal as refusal:
            self._refuse(refusal)  # when the slot and the token are free for a retry

    def _admit_and_stream(self) -> None:
        try:
            self._admit()
            self._stream()
        finally:
            if self._display is not None:
                self._display.close()  # also after a handshake that failed
            if self._slot is not None:
                self._service.release(self._slot)

    def _admit(self) -> None:
        """Check the request, reserve a slot, connect the display, and use the token up, last.

        Raises:
            Refusal: the request's answer.
        """
        if not self._is_stream(parts(self.path).path):
            raise Refusal(HTTPStatus.NOT_FOUND, "Not found")
        target = self._target()
        self._role = target.grant.role
        self._check_origin()
        self._check_handshake()
        self._slot = self._service.admission.reserve(target.grant, self.address)
        self._service.on_reserve()
        self._service.request_display(self._slot)
        self._display = _connect(*target)
        self._reconnect = lambda: _connect_again(*target)
        self._service.confirm(self._slot)

    def _target(self) -> Target:
        """Where the request's token leads, by websockify's token plugin."""
        try:
            tokens = query_fields(self.path).get("token", [])
        except Refusal:
            tokens = []
        target = self._service.token_plugin.lookup(tokens[0] if len(tokens) == 1 else "")
        if target is None or self._service.admission.is_used(target.grant.jti):
            raise Refusal(HTTPStatus.UNAUTHORIZED, BAD_TOKEN)
        return target

    def _stream(self) -> None:
        """Do the WebSocket handshake, then stream to the viewer until one side ends it."""
        slot, display = self._slot, self._display
        if slot is None or display is None:
            raise PeerGone("not admitted")  # only called after `_admit`
        self._tune(self.connection)
        self.connection.setblocking(False)
        early = self.rfile.peek()
        try:
            client = accept(self.connection, self.headers, early)
        except BadHandshake as error:
            self.connection.settimeout(REQUEST_TIMEOUT_S)
            raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from error
        control = slot.role is Role.CONTROL
        rfb = ClientFilter(control=control, screen_px=(WIDTH_PX, HEIGHT_PX), one_frame=True)
        # The x11vnc of the control role has no other viewer.
        share = None if control else self._service.shares.join(peer_cpu_s(display))
        session = self._service.session
        viewer = Viewer(
            client,
            display,
            rfb,
            self._on_first_frame,
            reconnect=self._reconnect,
            on_display_lost=lambda: session.report_display_lost(slot),
            share=share,
        )
        slot.attach(viewer)
        identity = {"viewer": slot.number, "address": slot.address, "role": str(slot.role)}
        self._service.session.emit("viewer.connected", **identity)
        started = time.monotonic()
        try:
            closed = viewer.run()
        finally:
            if share is not None:
                share.leave()
        self._service.counters.closed(closed.code)
        self._service.session.emit(
            "viewer.closed",
            **identity,
            duration_s=round(time.monotonic() - started, 3),
            bytes_out=client.sent_bytes,
            bytes_in=client.received_bytes,
            code=closed.code,
            reason=closed.reason,
            **({} if viewer.limit is None else {"limit": str(viewer.limit)}),
        )

    def _on_first_frame(self) -> None:
        self._service.counters.first_frame(time.monotonic() - self._accepted_at)

    @staticmethod
    def _tune(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Unsent data waits in our queue, where it is counted, not in the kernel's.
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)

    # -- checks

    @property
    def address(self) -> str:
        """The viewer's address."""
        return str(self.client_address[0])

    def _is_stream(self, path: str) -> bool:
        match = _STREAM_PATH.fullmatch(path)
        return match is not None and match["task_id"] == self._service.config.task_id

    def _check_origin(self) -> None:
        allowed = self._service.config.allowed_origins
        if allowed and "*" not in allowed and self.headers.get("Origin") not in allowed:
            raise Refusal(HTTPStatus.FORBIDDEN, "Origin not allowed")

    def _check_handshake(self) -> None:
        """Refuse what websockify's handshake would refuse, while the token is still unused."""
        if self.headers.get("Sec-WebSocket-Version") != SUPPORTED_VERSION:
            raise Refusal(
                HTTPStatus.UPGRADE_REQUIRED,
                f"only WebSocket version {SUPPORTED_VERSION} is supported",
                {"Sec-WebSocket-Version": SUPPORTED_VERSION},
            )
        key = self.headers.get("Sec-WebSocket-Key")
        if not key or not key.isascii():
            raise Refusal(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key is missing or not ASCII")

    # -- answers

    def _refuse(self, refusal: Refusal) -> None:
        self._json(refusal.status, {"detail": refusal.detail}, refusal.headers)
        self._service.refused(self.address, int(refusal.status), self._role)

    def _json(
        self, status: HTTPStatus, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        self._send(status, json.dumps(body).encode(), "application/json", headers or {})

    def _send(
        self, status: HTTPStatus, content: bytes, media_type: str, headers: Mapping[str, str]
    ) -> None:
        self.send_response(status)
        extra = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **headers}
        for name, value in extra.items():
            self.send_header(name, value)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that could not be parsed; http.server calls this."""
        del explain
        self.close_connection = True
        status = HTTPStatus(code)
        self.command = self.command or "GET"
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status, message = HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are supported"
        detail = status.phrase if message is None else re.sub(r"[^ -~]", "?", message)
        self._refuse(Refusal(status, detail))

    def version_string(self) -> str:
        """Return the Server header's value."""
        return "worker"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Log nothing: http.server's lines hold the query, and so the token."""

    # -- the connection

    def handle(self) -> None:
        """Handle the one request of this connection; a peer that disconnects is no error."""
        with contextlib.suppress(OSError, PeerGone):
            self.handle_one_request()

    def finish(self) -> None:
        """Close so that the peer receives all that was sent: unread data would reset it."""
        with contextlib.suppress(OSError):
            super().finish()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            left, deadline = _LINGER_MAX_BYTES, time.monotonic() + _LINGER_S
            while left > 0 and (left_s := deadline - time.monotonic()) > 0:
                self.connection.settimeout(left_s)
                data = self.connection.recv(left)
                if not data:
                    break
                left -= len(data)
        self.connection.close()


def _connect(_kind: str, path: str) -> socket.socket:
    """Connect to an x11vnc, non-blocking.

    Raises:
        Refusal: 503 when it does not accept the connection.
    """
    display = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        display.connect(path)
        # libvncserver waits 0.1 to 0.2 s for a WebSocket handshake of its own unless the client
        # sends first; the filter removes the viewer's copy.
        display.sendall(PROTOCOL_VERSION)
        display.setblocking(False)
    except OSError:
        display.close()
        raise display_unavailable() from None
    return display


def _connect_again(kind: str, path: str) -> socket.socket | None:
    try:
        return _connect(kind, path)
    except Refusal:
        return None
