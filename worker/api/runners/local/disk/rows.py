"""What is stored of the disk in the local runner's tables: counts of tasks, sums of accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.api.runners.local.disk.accounts import UncountedTask
from worker.api.runners.local.disk.usage import Usage

if TYPE_CHECKING:
    import sqlite3

OCCUPIED: Final = "SELECT account, bytes, files FROM disk"
GROWING: Final = (
    "SELECT account, task_id, pid, uid, finished_at FROM tasks WHERE disk_bytes IS NULL AND "
    "(phase IN (?, ?) OR pid IS NOT NULL OR uid IS NOT NULL)"
)
"""The started tasks, except those that have ended with all their processes."""
ENDED: Final = (
    "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY account ORDER BY number DESC) AS "
    "place FROM (SELECT number, account, task_id, pid, uid, finished_at FROM tasks WHERE "
    "disk_bytes IS NULL AND finished_at IS NOT NULL AND pid IS NULL AND uid IS NULL "
    "ORDER BY number DESC LIMIT 20000)) ORDER BY place, number DESC LIMIT ?"
)
"""The latest ended tasks that are not counted yet, one of each account after another."""
SAVE: Final = (
    "UPDATE tasks SET disk_files = ?, disk_bytes = ? + 1024 + "
    "length(CAST(inputs || ifnull(output, '') || ifnull(error, '') AS BLOB)) "
    "WHERE task_id = ? AND disk_bytes IS NULL"
)
"""Stores what an ended task occupies: its files, and about what its row takes."""


def usage_from(row: sqlite3.Row) -> Usage:
    """From a row of OCCUPIED."""
    return Usage(size_bytes=row["bytes"], files=row["files"])


def occupied_by(connection: sqlite3.Connection, account: str) -> Usage:
    """What the counted tasks of an account occupy."""
    row = connection.execute(f"{OCCUPIED} WHERE account = ?", (account,)).fetchone()
    return usage_from(row) if row else Usage()


def task_from(row: sqlite3.Row) -> UncountedTask:
    """From a row of GROWING or ENDED."""
    return UncountedTask(
        account=row["account"],
        task_id=row["task_id"],
        pid=row["pid"],
        uid=row["uid"],
        has_ended=row["finished_at"] is not None,
    )
