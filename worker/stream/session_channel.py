"""The stream server's end of the channel to the session (see `messages`)."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

from worker.attended.clock import TICK_S, AttendedClock
from worker.stream.messages import (
    FROM_SESSION,
    PACKET_MAX_BYTES,
    DisplayLost,
    DisplayReady,
    DisplayReleased,
    DisplayRequested,
    Event,
    FromSession,
    FromStreamServer,
)
from worker.wire import encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.stream.admission import ViewerSlot


def connect(path: Path) -> socket.socket:
    """Connect to the session; blocking."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.connect(str(path))
    return channel


class SessionChannel:
    """Sends from any thread; receives in the main thread."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._requests: dict[int, threading.Event] = {}
        self._up: dict[int, bool] = {}

    def fileno(self) -> int:
        """The descriptor that is readable when a message has arrived."""
        return self._channel.fileno()

    def send(self, message: FromStreamServer) -> None:
        """Send a message; dropped when the session has ended, which `receive` reports."""
        with contextlib.suppress(OSError):
            self._channel.send(encode(message))

    def emit(self, name: str, **fields: Any) -> None:
        """Write an event to the session's event log."""
        self.send(Event(name=name, fields=fields))

    def receive(self) -> Iterator[FromSession | None]:
        """Every message that has arrived; None, as the last, when the session has ended."""
        while True:
            try:
                packet = self._channel.recv(PACKET_MAX_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                yield None
                return
            yield FROM_SESSION.decode(packet)

    def request_display(self, slot: ViewerSlot, timeout_s: float) -> bool:
        """Wait until x11vnc accepts the viewer's connection; False when it does not in time."""
        answered = threading.Event()
        with self._lock:
            self._requests[slot.number] = answered
        self.send(DisplayRequested(viewer=slot.number, role=slot.role))
        clock = AttendedClock()
        until = clock() + timeout_s
        while not (arrived := answered.wait(min(TICK_S, timeout_s))) and clock() < until:
            pass
        with self._lock:
            del self._requests[slot.number]
            return self._up.pop(slot.number, False) and arrived

    def announce_viewer(self, slot: ViewerSlot) -> None:
        """A viewer is about to connect to x11vnc; its answer is not waited for."""
        self.send(DisplayRequested(viewer=slot.number, role=slot.role))

    def release_display(self, slot: ViewerSlot) -> None:
        """The viewer does not need x11vnc any more."""
        self.send(DisplayReleased(viewer=slot.number, role=slot.role))

    def report_display_lost(self, slot: ViewerSlot) -> None:
        """x11vnc has closed the viewer's connection: the session decides what the viewer gets."""
        self.send(DisplayLost(viewer=slot.number))

    def cancel_requests(self) -> None:
        """Let every `request_display` that is waiting return False."""
        with self._lock:
            for answered in self._requests.values():
                answered.set()

    def answer(self, message: DisplayReady) -> None:
        """Pass the session's answer on to the `request_display` that waits for it."""
        with self._lock:
            answered = self._requests.get(message.viewer)
            if answered is not None:
                self._up[message.viewer] = message.up
                answered.set()
