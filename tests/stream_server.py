"""A real stream server in a process of its own, whose session is the test."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from worker.stream import tokens
from worker.stream.messages import (
    FROM_STREAM_SERVER,
    PACKET_MAX_BYTES,
    Configure,
    DisplayLost,
    DisplayReady,
    DisplayReleased,
    DisplayRequested,
    DisplayRestarting,
    Event,
    FromSession,
    FromStreamServer,
    Listening,
    ServerRestarting,
    State,
    StateChanged,
    StreamConfig,
    Terminated,
    TokenUsed,
    send_configuration,
)
from worker.stream.tokens import Role
from worker.wire import encode

TASK_ID = "a-task"
_START_S = 20


class StreamServerProcess:
    """A stream server, its session, and the Unix sockets where it expects the x11vncs.

    Attributes:
        display_up: whether the session answers that x11vnc accepts connections.
        answers: whether the session answers at all.
        viewers: the numbers of the viewers that need x11vnc.
        used_tokens: the tokens that were used.
        events: the events that it has written.
        port: where viewers connect.
    """

    def __init__(self, folder: Path, *, state: State = State.RUNNING, **config: Any) -> None:
        self.display_up = True
        self.answers = True
        self.viewers: set[int] = set()
        self._waits = threading.Event()
        self.used_tokens: list[str] = []
        self.events: list[Event] = []
        self._folder = folder
        self._key = tokens.random_key()
        self._displays: dict[Role, socket.socket] = {}
        self._listening = threading.Event()
        for role in Role:
            self.open_display(role)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        path = folder / "stream.sock"
        with listener, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sessions:
            sessions.bind(str(path))
            sessions.listen()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker.stream.server", str(path)]
            )
            sessions.settimeout(_START_S)
            self._channel, _ = sessions.accept()
            configure = Configure(config=self._config(**config), state=state, used_tokens=())
            send_configuration(self._channel, listener, configure)
        threading.Thread(target=self._receive, daemon=True).start()
        if not self._listening.wait(_START_S):
            raise TimeoutError("the stream server does not listen")

    def _config(self, **config: Any) -> StreamConfig:
        defaults: dict[str, Any] = {
            "task_id": TASK_ID,
            "target": "task.py:run",
            "started_at": "2026-01-01T00:00:00Z",
            "key_hex": self._key.hex(),
            "x11vnc_socket": str(self._path(Role.VIEW)),
            "x11vnc_control_socket": str(self._path(Role.CONTROL)),
            "max_viewers": 2,
            "novnc_dir": None,
        }
        return StreamConfig(**(defaults | config))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(_START_S)
        self._channel.close()
        for role in Role:
            self.close_display(role)

    # -- the session

    def send(self, message: FromSession) -> None:
        self._channel.send(encode(message))

    def set_state(self, state: State) -> None:
        self.send(StateChanged(state=state))

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while packet := self._channel.recv(PACKET_MAX_BYTES):
                self._on_message(FROM_STREAM_SERVER.decode(packet))

    def _on_message(self, message: FromStreamServer) -> None:
        match message:
            case Listening():
                self._listening.set()
            case DisplayReleased(viewer=viewer):
                self.viewers.discard(viewer)
            case DisplayRequested(viewer=viewer):
                self.viewers.add(viewer)
                self._waits.set()
                if self.answers:
                    self.send(DisplayReady(viewer=viewer, up=self.display_up))
            case DisplayLost(viewer=viewer) if self.answers:
                self.send(DisplayRestarting(viewers=(viewer,)))
            case Terminated() if self.answers:
                self.send(ServerRestarting())
            case TokenUsed(jti=jti):
                self.used_tokens.append(jti)
            case Event():
                self.events.append(message)
            case _:
                pass

    def stop_when_a_viewer_waits(self) -> None:
        if self._waits.wait(_START_S):
            self.process.terminate()

    # -- the displays, which accept connections into their backlog and send nothing

    def _path(self, role: Role) -> Path:
        return self._folder / f"{role}.sock"

    def open_display(self, role: Role) -> None:
        display = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        display.bind(str(self._path(role)))
        display.listen()
        self._displays[role] = display

    def close_display(self, role: Role) -> None:
        display = self._displays.pop(role, None)
        if display is not None:
            display.close()
            self._path(role).unlink()

    # -- viewers

    def token(self, role: Role = Role.VIEW) -> str:
        return tokens.mint(self._key, TASK_ID, role)

    def url(self, token: str) -> str:
        return tokens.stream_url(f"ws://127.0.0.1:{self.port}", TASK_ID, token)
