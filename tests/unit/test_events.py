"""Events: text from outside is escaped, so it can be neither a line nor a terminal command."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
from datetime import datetime, timedelta, timezone

import pytest

from worker import events as events_module
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


@pytest.fixture
def pipe():
    """A pipe: its reading end, its writing end, and a stream to it."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8") as stream, os.fdopen(reading, "rb", 0) as file:
        os.set_blocking(reading, False)
        yield file, writing, stream


def _flushed(events, reading):
    events.flush(0)
    return reading.read(1 << 20)


def fill(descriptor):
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"-" * 4096)
    os.set_blocking(descriptor, True)


def test_events_wait_for_a_slow_reader_as_whole_lines(pipe):
    reading, writing, stream = pipe
    events = Events("id", stream)
    fill(writing)
    for number in range(3):
        events.emit("a.b", number=number, text="x" * 3000)
    assert reading.read(1 << 20).strip(b"-") == b""
    events.flush(0)
    lines = reading.read(1 << 20).splitlines()
    assert [json.loads(line)["number"] for line in lines] == [0, 1, 2]


async def test_events_that_waited_are_written_when_the_reader_reads(pipe):
    reading, writing, stream = pipe
    fill(writing)
    Events("id", stream).emit("a.b")
    reading.read(1 << 20)
    line = None
    while line is None:
        await asyncio.sleep(0)
        line = reading.read(1 << 20)
    assert json.loads(line)["event"] == "a.b"


def test_events_beyond_the_limit_are_dropped(pipe):
    reading, writing, stream = pipe
    events = Events("id", stream)
    fill(writing)
    for number in range(2000):
        events.emit("a.b", number=number, text="x" * 1000)
    reading.read(1 << 20)
    received = b""
    while chunk := reading.read(1 << 20) or _flushed(events, reading):
        received += chunk
    numbers = [json.loads(line)["number"] for line in received.splitlines()]
    assert numbers == list(range(len(numbers)))
    assert 500 < len(numbers) < 1100


def test_events_without_a_reader_are_dropped(pipe):
    reading, _, stream = pipe
    reading.close()
    Events("id", stream).emit("api.stopped")


def test_an_event_after_a_cut_line_is_a_line_of_its_own(tmp_path):
    """A disk that was full for some time costs the events of that time only."""
    file = tmp_path / "events"
    with file.open("w") as stream:
        output = events_module._LineOutput(stream.fileno())
        output._is_cut = True
        stream.write("cut")
        stream.flush()
        output.write(b"whole\n")
    assert file.read_text() == "cut\nwhole\n"
