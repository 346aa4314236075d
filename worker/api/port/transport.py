"""A connection's transport: counts what was written; closes so that the peer reads all of it."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio

LINGER_S: Final = 1.0
LINGER_MAX_BYTES: Final = 1024 * 1024
UNREAD_BYTES: Final = 64 * 1024
UNSENT_BYTES: Final = 64 * 1024
_TCP_NOTSENT_LOWAT: Final = 25
_NO_LINGER: Final = struct.pack("ii", 1, 0)


def tune(listener: socket.socket) -> None:
    """Limit what the kernel keeps for each connection that is accepted from now on."""
    # A read of the event loop returns up to what was received.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)
    # Unsent data waits in the transport, where it is counted.
    listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)


class LingeringTransport:
    """Wraps asyncio's transport; uvicorn's protocol and request cycles use it in its place.

    Attributes:
        lingers: whether the peer may still be sending. `close` then ends our side only, and what
            arrives is discarded for a while: unread data would reset the connection, and the peer
            would lose the answer.
        peer_ended: whether the peer has ended its side.
        written_bytes: how much was written in total.
        closed_at: when it was closed, by the loop's clock; None until then.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._discarded_bytes = 0
        self.closed_at: float | None = None
        self.lingers = self.peer_ended = False
        self.written_bytes = 0

    # -- what uvicorn uses

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self.closed_at is not None or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        self.written_bytes += len(data)
        self._transport.write(data)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Close when everything that was written is sent."""
        if self.is_closing():
            return
        self.closed_at = self._loop.time()
        if self.lingers and not self.peer_ended:
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()

    # -- what the connection uses

    @property
    def unsent_bytes(self) -> int:
        """How much of what was written has not been sent."""
        return self._transport.get_write_buffer_size()

    def discard(self, data: bytes) -> None:
        """Discard what arrives after `close`."""
        self._discarded_bytes += len(data)
        if self._discarded_bytes > LINGER_MAX_BYTES:
            self.finish()

    def finish(self) -> None:
        """End the wait for the peer, if everything is sent."""
        if not self.unsent_bytes:
            self._transport.close()

    def abort(self) -> None:
        """Close at once; a peer that does not read gets a reset, and the kernel keeps nothing."""
        self.closed_at = self._loop.time()
        connection = self._transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()
