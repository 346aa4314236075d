"""A SQLite file that cannot be written for some time."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from worker.api.runners.availability import Availability
from worker.api.runners.local.database import Database
from worker.api.runners.protocol import RunnerUnavailable

PATIENCE_S = 20
INSERT = "INSERT INTO tasks (account, task_id, endpoint_name, file, inputs, timeout_s, digest, \
created_at, phase) VALUES ('a', ?, 'e', 'f', '{}', 1, 'd', '2026', 'queued')"


@pytest.fixture
def events():
    return []


@pytest.fixture
async def database(tmp_path, events):
    opened = Database(
        tmp_path / "tasks.sqlite3", Availability(lambda event, **_: events.append(event))
    )
    yield opened
    await opened.close()


async def set_read_only(database, value):
    await database._writing.call(database._writer.execute, f"PRAGMA query_only = {value}")


def insert(task_id):
    return lambda connection: connection.execute(INSERT, (task_id,))


def stored(database):
    return [row["task_id"] for row in database.read("SELECT task_id FROM tasks ORDER BY number")]


async def test_writes_while_the_file_cannot_be_written(database, events):
    """A client's write is refused, the runner's own ones wait; both changes are reported once."""
    await set_read_only(database, 1)
    for _ in range(2):
        with pytest.raises(RunnerUnavailable, match="attempt to write a readonly database"):
            await database.write(insert("refused"))
    surely = asyncio.ensure_future(database.write_surely(insert("kept")))
    await asyncio.sleep(0)
    assert not surely.done()
    assert events == ["runner.lost"]
    await set_read_only(database, 0)
    async with asyncio.timeout(PATIENCE_S):
        await surely
    assert stored(database) == ["kept"]
    assert events == ["runner.lost", "runner.found"]
    await database.write(insert("next"))
    assert stored(database) == ["kept", "next"]


async def test_failed_write_changes_nothing(database):
    """A write is one transaction, whatever its error is."""

    def half(connection):
        insert("half")(connection)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await database.write(half)
    with pytest.raises(RunnerUnavailable):
        await database.write(lambda connection: [insert("twice")(connection) for _ in range(2)])
    async with asyncio.timeout(PATIENCE_S):
        await database.write_surely(insert("whole"))
    assert stored(database) == ["whole"]


async def test_locked_file(database, tmp_path, events):
    """Another program's lock delays a write of the runner and loses none."""
    other = sqlite3.connect(tmp_path / "tasks.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    surely = asyncio.ensure_future(database.write_surely(insert("kept")))
    async with asyncio.timeout(PATIENCE_S):
        while not events:
            await asyncio.sleep(0.01)
        assert stored(database) == []  # reads go on
        other.execute("ROLLBACK")
        await surely
    other.close()
    assert stored(database) == ["kept"]
    assert (tmp_path / "probe").exists() is False
