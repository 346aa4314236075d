"""The local runner's SQLite schema: creation, and migration from earlier versions."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from worker.api.runners.fairness import Capacity
from worker.api.runners.local import schema
from worker.api.runners.local.disk.usage import Usage
from worker.api.runners.local.store import Store
from worker.api.runners.protocol import NULL, TaskStatus
from worker.errors import SettingError

VERSION_1 = """
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    endpoint_name TEXT NOT NULL,
    file TEXT NOT NULL,
    inputs TEXT NOT NULL,
    timeout_s REAL NOT NULL,
    callback_url TEXT,
    callback_owed INTEGER NOT NULL DEFAULT 0,
    digest TEXT NOT NULL,
    created_at TEXT NOT NULL,
    phase TEXT NOT NULL,
    cancel INTEGER NOT NULL DEFAULT 0,
    pid INTEGER,
    pid_started INTEGER,
    started_at TEXT,
    finished_at TEXT,
    exit_code INTEGER,
    output TEXT,
    error TEXT
);
CREATE INDEX tasks_of_account ON tasks (account, created_at, task_id);
CREATE INDEX tasks_in_phase ON tasks (phase, number);
CREATE INDEX workers_noted ON tasks (number) WHERE pid IS NOT NULL;
CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX callbacks_owed ON tasks (number) WHERE callback_owed;
INSERT INTO tasks (task_id, account, endpoint_name, file, inputs, timeout_s, callback_url,
    callback_owed, digest, created_at, phase, finished_at, exit_code, output, error)
VALUES
    ('pending', 'alice', 'echo', 'echo.py', '{"n": 1}', 5, 'https://a.example', 1, 'd',
        '2026-05-04T00:00:00.000000+00:00', 'success', '2026-05-04T00:01:00.000Z', 0,
        '[1]', 'null'),
    ('done', 'alice', 'echo', 'echo.py', '{}', 5, 'https://a.example', 0, 'd',
        '2026-05-04T00:00:01.000000+00:00', 'failed', '2026-05-04T00:01:00.000Z', 1,
        'null', 'null');
"""
VERSION_2 = f"""{VERSION_1}
ALTER TABLE tasks RENAME COLUMN callback_owed TO callback_pending;
DROP INDEX callbacks_owed;
CREATE INDEX callbacks_pending ON tasks (number) WHERE callback_pending;
PRAGMA user_version = 2;
"""
VERSION_3 = f"""{VERSION_2}
DROP INDEX callbacks_pending;
ALTER TABLE tasks ADD COLUMN output_omitted INTEGER NOT NULL DEFAULT 0;
CREATE INDEX callbacks_of_account ON tasks (account, number) WHERE callback_pending;
PRAGMA user_version = 3;
"""
VERSION_4 = f"""{VERSION_3}
ALTER TABLE tasks ADD COLUMN port INTEGER;
ALTER TABLE tasks ADD COLUMN uid INTEGER;
CREATE INDEX uids_taken ON tasks (uid) WHERE uid IS NOT NULL;
PRAGMA user_version = 4;
"""
RUNNING = "UPDATE tasks SET phase = 'running', pid = 7, finished_at = NULL WHERE task_id = 'done';"


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "tasks.sqlite3"


def write(file: Path, script: str) -> None:
    connection = sqlite3.connect(file)
    connection.executescript(script)
    connection.close()


def layout(file: Path) -> dict[str, str]:
    """The statements of tables and indexes, by name, without white space."""
    connection = sqlite3.connect(file)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    found = {name: "".join(sql.split()).replace('"', "") for name, sql in rows}
    connection.close()
    return found


@pytest.mark.parametrize(
    "script",
    [
        f"{VERSION_1} PRAGMA user_version = 1;",
        VERSION_1,  # killed before the version was stored
        VERSION_2,
        VERSION_3,
        VERSION_4,
    ],
    ids=["1", "0", "2", "3", "4"],
)
async def test_migration(file, script):
    """Tasks and pending callbacks are kept; the schema is that of a new file."""
    write(file, script)
    store = Store(file, Capacity(max_running=2, queue_max=3))
    assert store.pending_callbacks(9) == [("alice", "pending")]
    pending = store.find("alice", "pending")
    assert (pending.status, pending.output) == (TaskStatus.SUCCESS, b"[1]")
    assert len(store.list("alice", None, None, 10)) == 2
    assert store.expired(datetime(2027, 1, 1, tzinfo=UTC), 10) == ["done"]
    assert [each.task_id for each in store.uncounted(10)] == ["done", "pending"]
    await store.save_usage("done", Usage(files=7))
    assert store.occupied()["alice"].files == 7
    await store.finish_callback("pending")
    assert store.pending_callbacks(9) == []
    await store.close()

    assert layout(file) == await layout_of_new(file)


async def layout_of_new(file: Path) -> dict[str, str]:
    new = file.with_name("new.sqlite3")
    await Store(new, Capacity(max_running=2, queue_max=3)).close()
    return layout(new)


@pytest.mark.parametrize("script", [VERSION_2, VERSION_3], ids=["2", "3"])
async def test_migration_of_a_running_task(file, script):
    """Tasks of running workers are kept; their ports and users are unknown."""
    write(file, script + RUNNING)
    store = Store(file, Capacity(max_running=2, queue_max=3))
    [running] = store.unfinished()
    assert (running.task_id, running.pid, running.port, running.uid) == ("done", 7, None, None)
    await store.close()
    assert layout(file) == await layout_of_new(file)


async def test_migrated_file_is_opened_again(file):
    write(file, f"{VERSION_1} PRAGMA user_version = 1;")
    await Store(file, Capacity(max_running=2, queue_max=3)).close()
    store = Store(file, Capacity(max_running=2, queue_max=3))
    assert store.pending_callbacks(9) == [("alice", "pending")]
    await store.close()


@pytest.mark.parametrize(
    "output", ["[" * 300 + "]" * 300, "[1e999]", "[NaN]", r'"\ud800"', "[" * 4000, "{"]
)
async def test_outputs_that_cannot_be_sent_are_omitted(file, output):
    """An earlier version stored them; the task's other columns are kept."""
    write(file, VERSION_1.replace("'[1]'", f"'{output}'"))
    store = Store(file, Capacity(max_running=2, queue_max=3))
    task = store.find("alice", "pending")
    assert (task.status, task.output, task.output_omitted) == (TaskStatus.SUCCESS, NULL, True)
    assert not store.find("alice", "done").output_omitted
    await store.close()


def test_failed_migration_changes_nothing(file):
    """An interrupted migration leaves version 1 as it was."""
    write(file, f"{VERSION_1} PRAGMA user_version = 1;")
    before = layout(file)
    connection = sqlite3.connect(file, isolation_level=None)
    connection.set_authorizer(
        lambda action, *_: (
            sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_DROP_INDEX else sqlite3.SQLITE_OK
        )
    )
    with pytest.raises(sqlite3.DatabaseError):
        schema.prepare(connection)
    connection.close()
    assert layout(file) == before


def test_later_version(file):
    """A file of a later version is refused and not changed."""
    write(file, f"PRAGMA user_version = {schema.VERSION + 1};")
    with pytest.raises(SettingError, match="WORKER_STATE_DIR"):
        Store(file, Capacity(max_running=2, queue_max=3))
    assert layout(file) == {}


def test_other_file(file):
    file.write_bytes(b"not a database, but longer than SQLite's header" * 10)
    with pytest.raises(SettingError, match="WORKER_STATE_DIR"):
        Store(file, Capacity(max_running=2, queue_max=3))
