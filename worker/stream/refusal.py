"""Refusals: the HTTP answers of the stream other than what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http import HTTPStatus

NOT_RUNNING: Final = "Stream not available: task is not running"
BAD_TOKEN: Final = "Invalid, expired or used stream token"  # noqa: S105 - a message
CONTROL_TAKEN: Final = "Another viewer has control"
TOO_MANY_VIEWERS: Final = "Too many viewers"
DISPLAY_RESTARTING: Final = "The display server is restarting"


class Refusal(Exception):
    """What a request gets instead; `detail` is the body's."""

    def __init__(
        self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail)
        self.status, self.detail, self.headers = status, detail, headers or {}
