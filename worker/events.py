"""Events: one JSON object a line on stdout, or a readable form of it on a terminal."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

_DIM: Final = "\x1b[2m"
_BOLD: Final = "\x1b[1m"
_RESET: Final = "\x1b[0m"
_NAME_WIDTH: Final = 22
# Control characters of terminals, line separators, and half surrogate pairs, which have no UTF-8:
# fields hold text from viewers and web pages too.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Events:
    """The event log of one task, or (without a task id) of the API.

    Events are dropped once the stream is closed: that must not end the task.
    """

    def __init__(self, task_id: str | None, stream: TextIO | None = None) -> None:
        self._task_id = task_id
        self._stream = sys.stdout if stream is None else stream
        self._is_terminal = self._stream.isatty()

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event.

        Args:
            event: `noun.past_tense`, for example `viewer.connected`.
            fields: JSON values, with units in their names.
        """
        now = datetime.now(UTC)
        if self._is_terminal:
            line = self._readable(now, event, fields)
        else:
            task = {} if self._task_id is None else {"task_id": self._task_id}
            record = {"time": rfc3339(now), "event": event, **task, **fields}
            line = _CONTROL.sub(_escaped, json.dumps(record, ensure_ascii=False, default=str))
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return  # EPIPE or a closed stream: there is no reader

    @staticmethod
    def _readable(now: datetime, event: str, fields: dict[str, Any]) -> str:
        clock = now.astimezone().strftime("%H:%M:%S.%f")[:-3]
        text = "  ".join(
            f"{_DIM}{name}{_RESET} {_CONTROL.sub(_escaped, str(value))}"
            for name, value in fields.items()
        )
        return f"{_DIM}{clock}{_RESET}  {_BOLD}{event:<{_NAME_WIDTH}}{_RESET}{text}"


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def rfc3339(moment: datetime) -> str:
    """Format a time as RFC 3339 in UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
