"""The SQLite schema of the local runner's store, and migrations from earlier versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.api.runners import fields

if TYPE_CHECKING:
    import sqlite3

VERSION: Final = 5
_ADDED: Final = {
    "output_omitted": "INTEGER NOT NULL DEFAULT 0",
    "port": "INTEGER",
    "uid": "INTEGER",
    "disk_bytes": "INTEGER",
    "disk_files": "INTEGER",
}
"""Columns that versions after 2 appended, in this order."""
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    endpoint_name TEXT NOT NULL,
    file TEXT NOT NULL,
    inputs TEXT NOT NULL,
    timeout_s REAL NOT NULL,
    callback_url TEXT,
    callback_pending INTEGER NOT NULL DEFAULT 0,
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
    error TEXT{"".join(f", {name} {kind}" for name, kind in _ADDED.items())}
);
CREATE INDEX IF NOT EXISTS tasks_of_account ON tasks (account, created_at, task_id);
CREATE INDEX IF NOT EXISTS tasks_in_phase ON tasks (phase, number);
CREATE INDEX IF NOT EXISTS workers_noted ON tasks (number) WHERE pid IS NOT NULL;
CREATE INDEX IF NOT EXISTS uids_taken ON tasks (uid) WHERE uid IS NOT NULL;
CREATE INDEX IF NOT EXISTS tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS callbacks_of_account ON tasks (account, number)
    WHERE callback_pending;
"""
_DISK: Final = """
CREATE INDEX IF NOT EXISTS tasks_uncounted ON tasks (number)
    WHERE disk_bytes IS NULL AND finished_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS disk (
    account TEXT NOT NULL PRIMARY KEY,
    bytes INTEGER NOT NULL,
    files INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS disk_counted AFTER UPDATE OF disk_bytes, disk_files ON tasks
    WHEN old.disk_bytes IS NULL AND new.disk_bytes IS NOT NULL
BEGIN
    INSERT INTO disk VALUES (new.account, new.disk_bytes, new.disk_files)
        ON CONFLICT (account) DO UPDATE
        SET bytes = bytes + excluded.bytes, files = files + excluded.files;
END;
CREATE TRIGGER IF NOT EXISTS disk_freed AFTER DELETE ON tasks WHEN old.disk_bytes IS NOT NULL
BEGIN
    UPDATE disk SET bytes = bytes - old.disk_bytes, files = files - old.disk_files
        WHERE account = old.account;
END;
"""
"""`disk` has the sums of its columns in `tasks`, of which NULL means: not counted yet."""
_FROM_1: Final = """
ALTER TABLE tasks RENAME COLUMN callback_owed TO callback_pending;
DROP INDEX IF EXISTS callbacks_owed;
"""
_FROM_2: Final = "DROP INDEX IF EXISTS callbacks_pending;"
# Earlier versions stored outputs that the API cannot send.
_OMIT_INVALID: Final = """
UPDATE tasks SET output = 'null', output_omitted = 1
    WHERE output IS NOT NULL AND NOT output_is_valid(output);
"""


class UnknownVersion(Exception):
    """The file was written by a later version of this program."""


def prepare(connection: sqlite3.Connection) -> None:
    """Create the tables, or migrate those of an earlier version, in one transaction.

    Raises:
        UnknownVersion: the file cannot be used with this version.
        sqlite3.Error: the file cannot be read or written.
    """
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    if version > VERSION:
        raise UnknownVersion(f"its version is {version}, and this program's {VERSION}")
    # Version 1 could be killed between creating the table and storing the version.
    columns = {row[1] for row in connection.execute("PRAGMA table_info(tasks)")}
    migration = (_FROM_1 if "callback_owed" in columns else "") + _FROM_2
    if columns:
        migration += "".join(
            f"ALTER TABLE tasks ADD COLUMN {name} {kind};"
            for name, kind in _ADDED.items()
            if name not in columns
        )
        migration += _OMIT_INVALID
        connection.create_function("output_is_valid", 1, fields.output_is_valid)
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {migration} {_SCHEMA} {_DISK} "
            f"PRAGMA user_version = {VERSION}; COMMIT;"
        )
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise
