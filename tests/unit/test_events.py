"""Events: what strangers say cannot become a line, or a command to the terminal."""

from __future__ import annotations

import io
import json

import pytest

from worker.events import Events

NASTY = "\x1b]0;title\x07\x9b31m\r\nfake line\u2028\x7f"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_control_characters(stream):
    """One event is one line without a control character but the terminal's own colours."""
    Events("id", stream).emit("viewer.closed", reason=NASTY, ok="naïve ✓")
    text = stream.getvalue()
    for own in ("\x1b[1m", "\x1b[2m", "\x1b[0m") if stream.isatty() else ():
        text = text.replace(own, "")
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert "naïve ✓" in text


def test_json_keeps_what_was_said():
    """Whoever parses the line gets the very text."""
    stream = io.StringIO()
    Events("id", stream).emit("viewer.closed", reason=NASTY)
    assert json.loads(stream.getvalue())["reason"] == NASTY


def test_half_a_surrogate_pair():
    """What has no UTF-8 is escaped, and so its event is not lost."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    Events("id", stream).emit("task.finished", error="half \ud83d")
    line = stream.buffer.getvalue().decode()
    assert json.loads(line)["error"] == "half \ud83d"
