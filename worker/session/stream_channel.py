"""The session's end of the control channel (see `control`)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.stream import messages
from worker.stream.admission import UsedTokens
from worker.stream.messages import PACKET_MAX_BYTES, State, StreamConfig

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from worker.outcome import Close


class Channel:
    """Configures each stream server that supervisord starts, and hears its events."""

    def __init__(
        self,
        *,
        path: Path,
        config: StreamConfig,
        listener: socket.socket,
        parent_pid: int,
        on_event: Callable[..., None],
        facts: Callable[[], dict[str, Any]],
        on_control: Callable[[bool], None],
    ) -> None:
        """Listen for stream servers.

        Args:
            path: the control socket's.
            config: what a stream server serves.
            listener: the TCP socket that it accepts viewers on.
            parent_pid: only this process's children are let in: the key is not for the task.
            on_event: gets a name and fields.
            facts: the fields of `metrics.Facts`, for a stream server that is asked for metrics.
            on_control: told that somebody wants control, or that nobody has it any more.
        """
        self.listening = asyncio.Event()
        self.viewers_gone = asyncio.Event()
        self._config, self._listener, self._parent_pid = config, listener, parent_pid
        self._on_event, self._on_control = on_event, on_control
        self._facts = facts
        self._state = State.STARTING
        self._display_up = True
        self._display_pid = 0
        self._close: Close | None = None
        self._used = UsedTokens()
        self._server: socket.socket | None = None
        self._socket = messages.listen(path)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._accept)

    def set_state(self, state: State) -> None:
        """Say what the task is doing."""
        self._state = state
        self._tell(messages.pack("state", state=str(state)))

    def set_display_up(self, *, up: bool, pid: int) -> None:
        """Say whether x11vnc can be connected to, and its process id."""
        self._display_up, self._display_pid = up, pid if up else 0
        self._tell_display()

    def display_blind(self) -> None:
        """Say that x11vnc will see no change for a while (see `doze`)."""
        self._tell(messages.pack("display.blind"))

    def answer_control(self, *, up: bool) -> None:
        """Answer whoever wants control: whether its x11vnc can be connected to."""
        self._tell(messages.pack("control", up=up))

    def end(self, close: Close) -> None:
        """Have every viewer told; `viewers_gone` is set when all were."""
        self._state, self._close = State.ENDING, close
        self._tell(messages.pack("end", code=close.code, reason=close.reason))
        if self._server is None:
            self.viewers_gone.set()

    def quit(self) -> None:
        """Let the stream server go."""
        self._tell(messages.pack("quit"))

    def close(self) -> None:
        """Stop listening for stream servers."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._drop_server()

    def _accept(self) -> None:
        try:
            server, _ = self._socket.accept()
        except BlockingIOError:
            return
        if _parent_of(messages.peer_pid(server)) != self._parent_pid:
            server.close()
            return
        self._drop_server()
        server.setblocking(False)
        self._server = server
        try:
            used = self._used.items()
            messages.configure(server, self._listener, self._config, self._state, used)
        except OSError:
            self._drop_server()
            return
        self._loop.add_reader(server, self._hear)
        self._tell_display()
        if self._close is not None:
            self.end(self._close)

    def _hear(self) -> None:
        if self._server is None:
            return
        try:
            packet = self._server.recv(PACKET_MAX_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._drop_server()
            return
        self._act(messages.unpack(packet))

    def _act(self, message: dict[str, Any]) -> None:
        match message:
            case {"kind": "listening"}:
                self.listening.set()
            case {"kind": "viewers.gone"} if self._close is not None:  # not those of a restart
                self.viewers_gone.set()
            case {"kind": "token.used", "jti": str(jti), "expires_at": int(expires_at)}:
                self._used.add(jti, expires_at)
            case {"kind": "facts.wanted"}:
                self._tell(messages.pack("facts", **self._facts()))
            case {"kind": "control.wanted"}:
                self._on_control(True)
            case {"kind": "control.left"}:
                self._on_control(False)
            case {"kind": "event", "name": str(name), "fields": dict(fields)}:
                self._on_event(name, **fields)

    def _tell_display(self) -> None:
        self._tell(messages.pack("display", up=self._display_up, pid=self._display_pid))

    def _tell(self, packet: bytes) -> None:
        if self._server is None:
            return
        try:
            self._server.send(packet)
        except OSError:
            return  # it died; supervisord starts the next, which is configured anew

    def _drop_server(self) -> None:
        if self._server is not None:
            self._loop.remove_reader(self._server)
            self._server.close()
            self._server = None
            self._on_control(False)
        if self._close is not None:
            self.viewers_gone.set()  # with their server, all viewers are gone


def _parent_of(pid: int) -> int:
    """A process's parent (proc(5), stat: the second field behind the command in parentheses)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])
