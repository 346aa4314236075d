"""A worker's events are read within limits, whatever the file contains."""

from __future__ import annotations

import json
import os
import tracemalloc

import pytest

from worker.api.runners.local import channel

TIME = "2026-05-04T00:00:00.000Z"
FINISHED = {"event": "worker.finished", "time": TIME}


def line(**fields):
    return json.dumps({"event": "stream.ready", "time": TIME} | fields).encode()


async def names(file, content):
    file.write_bytes(content + b"\n" + json.dumps(FINISHED).encode() + b"\n")
    return [event.name async for event in channel.events(file)]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "events.jsonl"


async def test_events_until_the_last_one(file):
    """Lines that are written in parts are read as a whole."""
    assert await names(file, line() + b"\n" + line(port=7)) == [
        "stream.ready",
        "stream.ready",
        "worker.finished",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"1e999",
        b'"stream.ready"',
        b"[" * 4000,
        b'{"a":' * 4000,
        b"\xff\xfe",
        b"\0" * 1000,
        line(event=5),
        line(event=None),
        line(time=None),
        line(time="never"),
        line(time="0001-01-01T00:00:00+14:00"),
        line(time=["2026-05-04T00:00:00Z"]),
        line(padding="x" * channel.LINE_MAX_BYTES),
        b"x" * (3 * channel.LINE_MAX_BYTES),
    ],
    ids=lambda content: content[:30].decode(errors="replace") + f" {len(content)}",
)
async def test_anything_else_is_skipped(file, content):
    """The lines before and after it are read."""
    around = await names(file, line() + b"\n" + content + b"\n" + line())
    assert around == ["stream.ready", "stream.ready", "worker.finished"]


async def test_times_are_normalised(file):
    """A time is stored, and later read by every list of the account."""
    file.write_bytes(line(time="2026-05-04T02:00:00+02:00") + b"\n" + json.dumps(FINISHED).encode())
    found = await anext(channel.events(file))
    assert found.time == TIME


async def test_huge_sparse_file(file):
    """Reading ends at the limit, with a small part of the file in memory."""
    with file.open("wb") as sparse:
        sparse.truncate(3 << 30)
    tracemalloc.start()
    try:
        assert [event async for event in channel.events(file)] == []
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 << 20


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")])
async def test_only_a_regular_file_is_opened(file, make):
    make(file)
    with pytest.raises(OSError, match="events"):
        await anext(channel.events(file))


def test_only_its_owner_can_open_it(file):
    os.close(channel.create(file))
    assert file.stat().st_mode & 0o777 == 0o600


def test_room_for_the_first_events_is_reserved(file):
    """A disk that becomes full later does not lose them."""
    os.close(channel.create(file))
    assert file.stat().st_size == 0
    assert file.stat().st_blocks * 512 >= 64 << 10


def test_event_that_a_file_has(file):
    file.write_bytes(line(event="a") + b"\n{}\n" + line(event="b") + b"\n")
    assert [channel.has_event(file, name) for name in "abc"] == [True, True, False]
