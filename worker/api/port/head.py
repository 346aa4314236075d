"""A request's head as it arrives: its end, its size, and whether it can be HTTP at all. Pure."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from worker.stream.acceptor import HEAD_MAX_BYTES

HEADERS_MAX: Final = 100  # as many as the stream's port accepts
_END: Final = b"\r\n\r\n"
_BARE_END: Final = b"\n\n"
_LINE: Final = re.compile(rb"[!-~]+ [!-~]+ HTTP/[0-9]\.[0-9]\r?\n")
_SUPPORTED: Final = re.compile(rb"[!-~]+ [!-~]+ HTTP/1\.")


class BadHead(Exception):
    """The head is refused."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(status, detail)
        self.status, self.detail = status, detail


class HeadBuffer:
    """What has arrived of a head, and what follows it."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._searched = 0
        self._line_checked = False

    def __len__(self) -> int:
        return len(self._received)

    def add(self, data: bytes) -> None:
        """Add what has arrived."""
        self._received += data

    def clear(self) -> None:
        """Discard everything."""
        self._received.clear()
        self._restart()

    def take(self) -> tuple[bytes, bytes] | None:
        """The head, and what has arrived after it; None while the head is incomplete.

        Raises:
            BadHead: it is too large, or not HTTP/1.
        """
        received = self._received
        if received[:2] == b"\r\n":  # an empty line before the request: RFC 9112, section 2.2
            del received[:2]
            self._searched = 0
        end = received.find(_END, max(0, self._searched - len(_END)))
        self._check_line()
        if end < 0:
            self._check_incomplete()
            self._searched = len(received)
            return None
        end += len(_END)
        if end > HEAD_MAX_BYTES:
            raise _too_large()
        if received.count(b"\n", 0, end) > HEADERS_MAX + 2:
            raise BadHead(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {HEADERS_MAX} headers"
            )
        head, rest = bytes(received[:end]), bytes(received[end:])
        self.clear()
        return head, rest

    def _restart(self) -> None:
        self._searched = 0
        self._line_checked = False

    def _check_line(self) -> None:
        if self._line_checked or b"\n" not in self._received:
            return
        if _LINE.match(self._received) is None:
            raise BadHead(HTTPStatus.BAD_REQUEST, "not an HTTP/1.1 request")
        if _SUPPORTED.match(self._received) is None:
            raise BadHead(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 is supported")
        self._line_checked = True

    def _check_incomplete(self) -> None:
        if len(self._received) > HEAD_MAX_BYTES:
            raise _too_large()
        if self._received.find(_BARE_END, max(0, self._searched - len(_BARE_END))) >= 0:
            raise BadHead(HTTPStatus.BAD_REQUEST, "lines must end with CR LF")


def _too_large() -> BadHead:
    return BadHead(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        f"the request's head is larger than {HEAD_MAX_BYTES} bytes",
    )
