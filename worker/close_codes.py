"""The WebSocket close codes and reasons that viewers get (RFC 6455, section 7.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


class CloseCode:
    """WebSocket close codes that the stream sends (RFC 6455, section 7.4)."""

    TASK_ENDED: Final = 1000
    VIEWER_DROPPED: Final = 1008
    DISPLAY_LOST: Final = 1011
    DISPLAY_RESTARTING: Final = 1012


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The code and the reason of the WebSocket Close that a viewer gets."""

    code: int
    reason: str


DISPLAY_LOST: Final = Close(code=CloseCode.DISPLAY_LOST, reason="display lost")
DISPLAY_RESTARTING: Final = Close(
    code=CloseCode.DISPLAY_RESTARTING, reason="display server restarting"
)
VIEWER_TOO_SLOW: Final = Close(code=CloseCode.VIEWER_DROPPED, reason="viewer too slow")
PROTOCOL_VIOLATION: Final = Close(code=CloseCode.VIEWER_DROPPED, reason="protocol violation")
