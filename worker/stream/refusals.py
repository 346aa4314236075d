"""Refusals: HTTP error answers of the stream server, and the parsing of URLs for them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUERY_FIELDS_MAX: Final = 16

NOT_RUNNING: Final = "Stream not available: task is not running"
BAD_TOKEN: Final = "Invalid, expired or used stream token"  # noqa: S105 - a message
CONTROL_TAKEN: Final = "Another viewer has control"
TOO_MANY_VIEWERS: Final = "Too many viewers"
DISPLAY_RESTARTING: Final = "The display server is restarting"


class Refusal(Exception):
    """An HTTP error answer; `detail` is in its JSON body."""

    def __init__(
        self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail)
        self.status, self.detail, self.headers = status, detail, headers or {}


def display_unavailable() -> Refusal:
    """503 while x11vnc or the stream server is restarted."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, DISPLAY_RESTARTING, {"Retry-After": "1"})


def parts(url: str) -> SplitResult:
    """The parts of an untrusted URL.

    Raises:
        Refusal: 400.
    """
    try:
        return urlsplit(url)
    except ValueError:  # for example `http://[`
        raise Refusal(HTTPStatus.BAD_REQUEST, "Bad request") from None


def query_fields(url: str) -> dict[str, list[str]]:
    """The query fields of an untrusted URL.

    Raises:
        Refusal: 400.
    """
    try:
        return parse_qs(parts(url).query, max_num_fields=_QUERY_FIELDS_MAX)
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "Too many fields") from None
