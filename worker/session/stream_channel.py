"""The session's end of the channel to its stream servers (see `worker.stream.messages`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, assert_never

from worker.session import stream_handover
from worker.stream.admission import UsedTokens
from worker.stream.messages import (
    FROM_STREAM_SERVER,
    PACKET_MAX_BYTES,
    Configure,
    DisplayChanged,
    DisplayLost,
    DisplayReady,
    DisplayReleased,
    DisplayRequested,
    DisplayRestarting,
    End,
    Event,
    Facts,
    FromSession,
    FromStreamServer,
    Listening,
    Quit,
    ServerRestarting,
    State,
    StateChanged,
    StreamConfig,
    Terminated,
    TokenUsed,
    ViewersGone,
    send_configuration,
)
from worker.wire import encode

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from worker.close_codes import Close
    from worker.stream.tokens import Role


class Display(Protocol):
    """An x11vnc that viewers connect to."""

    async def acquire(self, viewer: int) -> bool:
        """Return when the viewer may connect; False when it cannot."""

    def release(self, viewer: int) -> None:
        """The viewer does not need it any more."""

    def release_all(self) -> None:
        """No viewer needs it any more."""


class Programs(stream_handover.Programs, Protocol):
    """What runs of the display stack."""

    async def display_lives(self) -> bool:
        """Whether the X server and supervisord run; False also while one is ending."""

    async def supervisord_lives(self) -> bool:
        """Whether supervisord runs; False also while it is shutting down."""


class StreamChannel:
    """Configures each stream server that supervisord starts, and receives its messages.

    Attributes:
        viewers_gone: is set when every viewer was closed after `end`.
    """

    def __init__(
        self,
        *,
        path: Path,
        config: StreamConfig,
        listener: socket.socket,
        displays: Mapping[Role, Display],
        emit: Callable[..., None],
        programs: Programs,
    ) -> None:
        """Listen for stream servers.

        Args:
            path: of the Unix socket.
            config: what a stream server serves.
            listener: the TCP socket on which it accepts viewers.
            displays: the x11vnc for each role.
            emit: writes an event.
            programs: what runs.
        """
        self.viewers_gone = asyncio.Event()
        self._listening = asyncio.Event()
        self._config, self._listener = config, listener
        self._displays, self._emit = displays, emit
        self._programs = programs
        self._state = State.STARTING
        self._display = DisplayChanged(up=False, settled=False)
        self._facts: Facts | None = None
        self._close: Close | None = None
        self._used = UsedTokens()
        self._server: socket.socket | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._without_display: set[int] = set()
        self._asking: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._handover = stream_handover.StreamHandover(path, programs, self._configure)

    def expect(self, pid: int) -> None:
        """A stream server was started by supervisord as this process."""
        self._drop_server()
        self._handover.expect(pid)

    async def listening(self) -> None:
        """Wait until a stream server accepts viewers."""
        await self._listening.wait()

    def set_state(self, state: State) -> None:
        """Report the task's state."""
        self._state = state
        self._send(StateChanged(state=state))

    def set_display(self, *, up: bool, settled: bool) -> None:
        """Report the state of the viewers' x11vnc."""
        self._display = DisplayChanged(up=up, settled=settled)
        self._send(self._display)

    def set_facts(self, facts: Facts) -> None:
        """Report what `/metrics` shows besides the stream server's own counters."""
        self._facts = facts
        self._send(facts)

    def end(self, close: Close) -> None:
        """Close every viewer; `viewers_gone` is set when that is done."""
        self._state, self._close = State.ENDING, close
        self._send(End(close=close))
        if self._server is None:
            self.viewers_gone.set()

    def quit(self) -> None:
        """Let the stream server exit."""
        self._send(Quit())

    def close(self) -> None:
        """Stop listening for stream servers."""
        self._handover.close()
        self._drop_server()
        for request in self._requests:
            request.cancel()

    # -- stream servers

    def _configure(self, server: socket.socket) -> None:
        self._drop_server()
        self._server = server
        configure = Configure(config=self._config, state=self._state, used_tokens=self._used.all())
        try:
            send_configuration(server, self._listener, configure)
        except OSError:
            self._drop_server()
            return
        self._loop.add_reader(server, self._receive)
        self._send(self._display)
        if self._facts is not None:
            self._send(self._facts)
        if self._close is not None:
            self.end(self._close)

    def _receive(self) -> None:
        if self._server is None:
            return
        try:
            packet = self._server.recv(PACKET_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            self._on_message(FROM_STREAM_SERVER.decode(packet))
        else:
            self._drop_server()

    def _on_message(self, message: FromStreamServer) -> None:
        match message:
            case Listening():
                self._listening.set()
            case TokenUsed(jti=jti, expires_at=expires_at):
                self._used.add(jti, expires_at)
            case DisplayRequested() | DisplayReleased() | DisplayLost():
                self._on_viewer(message)
            case Terminated():
                self._request(self._answer_terminated(self._server))
            case ViewersGone():
                if self._close is not None:  # otherwise those of a server that is restarted
                    self.viewers_gone.set()
            case Event(name=name, fields=fields):
                self._emit(name, **fields)
            case _:
                assert_never(message)

    def _on_viewer(self, message: DisplayRequested | DisplayReleased | DisplayLost) -> None:
        match message:
            case DisplayRequested():
                self._request(self._acquire(message, self._server))
            case DisplayReleased(viewer=viewer, role=role):
                self._displays[role].release(viewer)
            case DisplayLost(viewer=viewer):
                self._without_display.add(viewer)
                if self._asking is None or self._asking.done():
                    self._asking = self._request(self._answer_display_lost())
            case _:
                assert_never(message)

    def _request(self, answering: Coroutine[None, None, None]) -> asyncio.Task[None]:
        request = asyncio.ensure_future(answering)
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        return request

    async def _answer_display_lost(self) -> None:
        """Answer all viewers that have lost x11vnc; not when the display is lost: `end` follows.

        The X server is asked after x11vnc's end was observed: its own end has begun before.
        """
        while self._without_display:
            viewers, self._without_display = tuple(self._without_display), set()
            server = self._server
            if await self._programs.display_lives() and self._server is server:
                self._send(DisplayRestarting(viewers=viewers))

    async def _answer_terminated(self, server: socket.socket | None) -> None:
        if await self._programs.supervisord_lives() and self._server is server:
            self._send(ServerRestarting())

    async def _acquire(self, request: DisplayRequested, server: socket.socket | None) -> None:
        if self._server is not server:  # its viewers were released already
            return
        up = await self._displays[request.role].acquire(request.viewer)
        if self._server is server:  # a later server numbers its viewers anew
            self._send(DisplayReady(viewer=request.viewer, up=up))

    def _send(self, message: FromSession) -> None:
        if self._server is None:
            return
        try:
            self._server.send(encode(message))
        except OSError:
            return  # it has ended; supervisord starts the next one, which is configured anew

    def _drop_server(self) -> None:
        if self._server is not None:
            self._loop.remove_reader(self._server)
            self._server.close()
            self._server = None
            self._listening.clear()
            self._without_display.clear()
            for display in self._displays.values():
                display.release_all()
        if self._close is not None:
            self.viewers_gone.set()  # their connections ended with their server
