"""Events: text from outside is escaped, so it can be neither a line nor a terminal command."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta, timezone

import pytest

from worker.events import Events, rfc3339

NASTY = "\x1b]0;title\x07\x9b31m\r\nfake line\u2028\x7f"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["json", "terminal"])
def test_an_event_is_one_line_without_control_characters(stream):
    """Only the colours that Events itself adds for a terminal are control characters."""
    Events("id", stream).emit("viewer.closed", reason=NASTY, ok="naïve ✓")
    text = stream.getvalue()
    for own in ("\x1b[1m", "\x1b[2m", "\x1b[0m") if stream.isatty() else ():
        text = text.replace(own, "")
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    assert "naïve ✓" in text


def test_parsing_the_line_gives_the_original_text():
    stream = io.StringIO()
    Events("id", stream).emit("viewer.closed", reason=NASTY)
    assert json.loads(stream.getvalue())["reason"] == NASTY


def test_half_a_surrogate_pair_is_escaped():
    """It has no UTF-8, so writing it as it is would lose the event."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    Events("id", stream).emit("task.finished", error="half \ud83d")
    line = stream.buffer.getvalue().decode()
    assert json.loads(line)["error"] == "half \ud83d"


@pytest.mark.parametrize(("task_id", "task"), [("id", {"task_id": "id"}), (None, {})])
def test_a_tasks_events_have_its_id(task_id, task):
    stream = io.StringIO()
    Events(task_id, stream).emit("api.stopped")
    event = json.loads(stream.getvalue())
    del event["time"]
    assert event == {"event": "api.stopped", **task}


def test_an_event_for_a_closed_stream_is_dropped():
    stream = io.StringIO()
    events = Events("id", stream)
    stream.close()
    events.emit("api.stopped")


def test_times_are_in_utc_with_milliseconds():
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(moment) == "2026-01-02T01:04:05.678Z"
