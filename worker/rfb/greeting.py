"""The order of the server's handshake messages (RFC 6143, section 7.1)."""

from __future__ import annotations

from typing import Final

from worker.rfb.messages import PROTOCOL_VERSION

_SECURITY_TYPES_BYTES: Final = 2  # one type, None
_SECURITY_RESULT_BYTES: Final = 4
_PROMPTED_BYTES: Final = (  # what the server has sent when it waits for each step
    len(PROTOCOL_VERSION),
    len(PROTOCOL_VERSION) + _SECURITY_TYPES_BYTES,
    len(PROTOCOL_VERSION) + _SECURITY_TYPES_BYTES + _SECURITY_RESULT_BYTES,
)


class Greeting:
    """Sends a viewer the server's ProtocolVersion alone, and the rest after its answer.

    x11vnc receives the viewer's ProtocolVersion before the viewer has sent it, so x11vnc's own
    ProtocolVersion and its security types can arrive as one piece. noVNC reads one handshake step
    per message and would wait without end for a second one.

    Attributes:
        done: Whether the server's bytes pass unchanged from now on.
    """

    def __init__(self) -> None:
        self.done = False
        self._waiting = b""
        self._version_sent = False
        self._answer_bytes = 0
        self._server_bytes = 0

    def from_server(self, data: bytes) -> list[bytes]:
        """Take what the server sent; return the messages to send to the viewer now."""
        self._server_bytes += len(data)
        if self.done:
            return [data]
        self._waiting += data
        messages = []
        if not self._version_sent and len(self._waiting) >= len(PROTOCOL_VERSION):
            messages.append(self._waiting[: len(PROTOCOL_VERSION)])
            self._waiting = self._waiting[len(PROTOCOL_VERSION) :]
            self._version_sent = True
        return messages + self._rest()

    @property
    def has_begun(self) -> bool:
        """Whether the server has sent anything."""
        return self._server_bytes > 0

    @property
    def prompts(self) -> int:
        """How many steps of the handshake the server has asked for, of three.

        The viewer has nothing to send before.
        """
        return sum(self._server_bytes >= size for size in _PROMPTED_BYTES)

    def from_viewer(self, data: bytes | bytearray) -> list[bytes]:
        """Take what the viewer sent; return the messages to send to the viewer now."""
        if self.done:
            return []
        self._answer_bytes += len(data)
        return self._rest()

    def _rest(self) -> list[bytes]:
        self.done = self._version_sent and self._answer_bytes >= len(PROTOCOL_VERSION)
        if not (self.done and self._waiting):
            return []
        rest, self._waiting = self._waiting, b""
        return [rest]
