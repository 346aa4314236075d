"""The session's end of a stream server's channel: answers its requests and records its events."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from typing import Any, Final

from worker.stream import messages
from worker.wire import encode

_READY_TIMEOUT_S: Final = 30.0


class FakeSession:
    """Serves one channel in a thread.

    Attributes:
        server_end: the stream server's end of the channel.
        closes: closed viewers by close code.
        refusals: refused requests by HTTP status.
        failures: the `*.failed` events.
        lost: how many viewers have lost their connection to the VNC server.
    """

    def __init__(self) -> None:
        self._channel, self.server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.closes: Counter[int] = Counter()
        self.refusals: Counter[int] = Counter()
        self.failures: list[str] = []
        self.lost = 0
        self._listening = threading.Event()

    def start(self, server_pid: int) -> bool:
        """Serve; return whether the server listens in time."""
        self.server_end.close()
        threading.Thread(target=self._serve, args=(server_pid,), daemon=True).start()
        return self._listening.wait(_READY_TIMEOUT_S)

    def close(self) -> None:
        self._channel.close()

    def _serve(self, server_pid: int) -> None:
        while packet := self._channel.recv(messages.PACKET_MAX_BYTES):
            match messages.FROM_STREAM_SERVER.decode(packet):
                case messages.Listening():
                    facts = messages.Facts(stages_ms={}, restarts={}, pids={"x": server_pid})
                    self._channel.send(encode(facts))
                    self._listening.set()
                case messages.DisplayRequested(viewer=viewer):
                    self._channel.send(encode(messages.DisplayReady(viewer=viewer, up=True)))
                case messages.DisplayLost(viewer=viewer):
                    self.lost += 1
                    restarting = messages.DisplayRestarting(viewers=(viewer,))
                    self._channel.send(encode(restarting))
                case messages.Event(name=name, fields=fields):
                    self._record(name, fields)

    def _record(self, name: str, fields: dict[str, Any]) -> None:
        if name == "viewer.closed":
            self.closes[fields["code"]] += 1
        elif name == "viewer.refused":
            self.refusals[fields["status"]] += 1
        elif name.endswith(".failed"):
            self.failures.append(f"{name} {fields}")
