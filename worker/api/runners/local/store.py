"""The local runner's tasks, in SQLite, so that nothing is lost when the API process is killed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from worker.api.runners.fairness import Capacity, Turns
from worker.api.runners.local.database import Database
from worker.api.runners.local.disk import rows as disk_rows
from worker.api.runners.local.disk.accounts import DiskAccounts
from worker.api.runners.local.stored_task import (
    QUEUED,
    STARTING,
    SUMMARY,
    UNREADABLE,
    WHOLE,
    StoredTask,
    TaskEnd,
    UnreadableRow,
    record_from,
    sortable,
    status_of,
    task_from,
)
from worker.api.runners.protocol import Cursor, TaskRecord, TaskRequest, TaskStatus
from worker.events import rfc3339

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from worker.api.runners.availability import Availability
    from worker.api.runners.local.disk.accounts import UncountedTask
    from worker.api.runners.local.disk.usage import Usage

_OLDEST: Final = "SELECT account, min(number) AS number FROM tasks WHERE phase = ? GROUP BY account"
_RUNNING: Final = (
    "SELECT account, count(*) AS running FROM tasks WHERE phase IN (?, ?) GROUP BY account"
)

UNCLEANED_MAX: Final = 32
"""Ended tasks of an account whose users are still in use; with more, others would lack users."""
_UNCLEANED: Final = (
    "SELECT account FROM tasks WHERE uid IS NOT NULL AND finished_at IS NOT NULL "
    "GROUP BY account HAVING count(*) >= ?"
)
_EXPIRED: Final = (
    "finished_at IS NOT NULL AND finished_at < ? "
    "AND pid IS NULL AND uid IS NULL AND NOT callback_pending"
)
_UNREMOVABLE: Final = (
    "SELECT 1 FROM tasks WHERE task_id = ? "
    "AND (finished_at IS NULL OR pid IS NOT NULL OR uid IS NOT NULL)"
)


class Store:
    """The tasks of one state folder, which one process at a time may open.

    While the file cannot be used, reads and the changes for clients raise RunnerUnavailable. The
    runner's own changes of a task's state wait and are repeated until they are stored.
    """

    def __init__(
        self,
        file: Path,
        capacity: Capacity,
        availability: Availability | None = None,
        disk: DiskAccounts | None = None,
    ) -> None:
        """Open or create the file.

        Args:
            file: the SQLite file.
            capacity: the limits of running and queued tasks.
            availability: where losing and finding the file again is recorded.
            disk: the limit of what an account's tasks occupy; default: none.

        Raises:
            SettingError: the file cannot be used.
        """
        self._database = Database(file, availability)
        self._capacity = capacity
        self._removals: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._turns = Turns(capacity)
        self._disk = disk or DiskAccounts()

    async def close(self) -> None:
        """Finish the last write and close the file."""
        await self._database.close()

    # -- for clients

    async def add(self, request: TaskRequest) -> TaskRecord:
        """Queue a task unless its id exists; the record of the stored task.

        Raises:
            QueueFull: the queue, or the account's part of it, has reached its limit.
            AccountFull: the files of the account's tasks have reached its limit.
        """
        existing = self.find(request.account, request.task_id)
        if existing is not None:
            return existing
        await self._database.write(lambda connection: self._insert(connection, request))
        added = self.find(request.account, request.task_id)
        if added is None:
            raise LookupError(request.task_id)
        return added

    def _insert(self, connection: sqlite3.Connection, request: TaskRequest) -> None:
        [(queued, of_account)] = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE account = ?) FROM tasks WHERE phase = ?",
            (request.account, QUEUED),
        ).fetchall()
        self._capacity.check_queue(queued=queued, of_account=of_account)
        self._disk.check(request.account, disk_rows.occupied_by(connection, request.account))
        connection.execute(
            "INSERT OR IGNORE INTO tasks (task_id, account, endpoint_name, file, inputs, "
            "timeout_s, callback_url, digest, created_at, phase) VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                request.task_id,
                request.account,
                request.endpoint_name,
                str(request.file),
                json.dumps(request.inputs),
                request.timeout_s,
                request.callback_url,
                request.digest,
                sortable(request.created_at),
                QUEUED,
            ),
        )

    def find(self, account: str, task_id: str, *, summary: bool = False) -> TaskRecord | None:
        """A task of this account; the same query for another account's as for a missing one."""
        columns = SUMMARY if summary else WHOLE
        rows = self._database.read(
            f"SELECT {columns} FROM tasks "  # noqa: S608 - constant names
            "WHERE task_id = ? AND account = ?",
            (task_id, account),
        )
        return record_from(rows[0]) if rows else None

    def list(
        self, account: str, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        """Tasks of this account, newest first, without inputs and output."""
        condition, values = "account = ?", [account]
        if status is not None:
            phases = (QUEUED, STARTING) if status is TaskStatus.QUEUED else (str(status),) * 2
            condition, values = condition + " AND phase IN (?, ?)", [*values, *phases]
        if before is not None:
            condition += " AND (created_at, task_id) < (?, ?)"
            values += [sortable(before.created_at), before.task_id]
        rows = self._database.read(
            f"SELECT {SUMMARY} FROM tasks WHERE {condition} "  # noqa: S608 - constant texts
            "ORDER BY created_at DESC, task_id DESC LIMIT ?",
            (*values, limit),
        )
        return [record_from(row) for row in rows]

    def counts(self) -> dict[TaskStatus, int]:
        """The number of tasks in each status."""
        counts = dict.fromkeys(TaskStatus, 0)
        for phase, count in self._database.read("SELECT phase, count(*) FROM tasks GROUP BY phase"):
            counts[status_of(phase)] += count
        return counts

    # -- for the runner

    async def usable(self) -> None:
        """Return when the file can be used."""
        await self._database.usable()

    async def take_next(self, but: Collection[str] = ()) -> StoredTask | None:
        """Move the next queued task to `starting` and return it; None if none may be started.

        It is the oldest one of the account whose turn it is; the tasks of an account whose files
        have reached its limit, or of whose ended tasks many are not cleaned up yet, stay queued. A
        task whose row is invalid is ended.

        Args:
            but: accounts that are left out.

        Raises:
            RunnerUnavailable: it could not be stored; the task is still queued.
        """
        without = frozenset(but)
        return await self._database.write(lambda connection: self._take(connection, without))

    def _take(self, connection: sqlite3.Connection, but: Collection[str]) -> StoredTask | None:
        while True:
            running = connection.execute(_RUNNING, (STARTING, str(TaskStatus.RUNNING)))
            counts = {row["account"]: row["running"] for row in running}
            uncleaned = connection.execute(_UNCLEANED, (UNCLEANED_MAX,))
            waiting = {*but, *(row["account"] for row in uncleaned)}
            queued = connection.execute(_OLDEST, (QUEUED,))
            oldest = {
                row["account"]: row["number"]
                for row in queued
                if row["account"] not in waiting
                and not self._disk.is_full(
                    row["account"], disk_rows.occupied_by(connection, row["account"])
                )
            }
            account = self._turns.take(oldest, counts)
            if account is None:
                return None
            rows = connection.execute(
                "UPDATE tasks SET phase = ? WHERE number = ? RETURNING *",
                (STARTING, oldest[account]),
            ).fetchall()
            try:
                return task_from(rows[0])
            except UnreadableRow as error:
                _end_unreadable(connection, error)

    async def requeue(self, task_id: str) -> None:
        """Queue a task again, in its old place: its code never began."""
        await self._update(
            "phase = ?, started_at = NULL, pid = NULL, pid_started = NULL, port = NULL",
            (QUEUED,),
            task_id,
            from_phases=(STARTING, str(TaskStatus.RUNNING)),
        )

    async def save_start(self, task_id: str, *, port: int, uid: int | None) -> None:
        """Store where a task's worker will listen, and its user, before it is started."""
        await self._update("port = ?, uid = ?", (port, uid), task_id)

    async def mark_cleaned_up(self, task_id: str) -> None:
        """Store that nothing of a task's user is left."""
        await self._update("uid = NULL", (), task_id)

    def uids(self) -> Sequence[int]:
        """The users of tasks that are not cleaned up yet."""
        rows = self._database.read("SELECT uid FROM tasks WHERE uid IS NOT NULL")
        return [row["uid"] for row in rows]

    async def save_process(self, task_id: str, pid: int, pid_started: int) -> bool:
        """Store the worker's process; returns whether the task has been cancelled since."""
        await self._update("pid = ?, pid_started = ?", (pid, pid_started), task_id)
        return await self.is_cancelled(task_id)

    async def is_cancelled(self, task_id: str) -> bool:
        """Whether the end of a stored task was requested."""
        statement = "SELECT cancel FROM tasks WHERE task_id = ?"
        rows = await self._database.write_surely(
            lambda connection: connection.execute(statement, (task_id,)).fetchall()
        )
        return bool(rows and rows[0]["cancel"])

    async def mark_running(self, task_id: str, started_at: str) -> None:
        """Move a task to `running`: viewers can connect."""
        await self._update(
            "phase = ?, started_at = ?",
            (str(TaskStatus.RUNNING), started_at),
            task_id,
            from_phases=(STARTING,),
        )

    async def mark_worker_gone(self, task_id: str) -> None:
        """Store that an ended task's worker has ended, too."""
        await self._update("pid = NULL", (), task_id)

    async def mark_ended(self, task_id: str, end: TaskEnd) -> bool:
        """Store a task's end; returns False if one is stored already."""
        return await self._update(
            "phase = ?, started_at = coalesce(started_at, ?), finished_at = ?, exit_code = ?, "
            "output = CAST(? AS TEXT), output_omitted = ?, error = ?, "
            "callback_pending = callback_url IS NOT NULL",
            (
                str(end.status),
                end.started_at,
                end.finished_at,
                end.exit_code,
                end.output,
                end.output_omitted,
                json.dumps(end.error),
            ),
            task_id,
            from_phases=(QUEUED, STARTING, str(TaskStatus.RUNNING)),
        )

    async def cancel_queued(self, task_id: str, end: TaskEnd) -> bool:
        """End a queued task; for any other, store that its end was requested and return False."""

        def cancel(connection: sqlite3.Connection) -> bool:
            connection.execute("UPDATE tasks SET cancel = 1 WHERE task_id = ?", (task_id,))
            ended = connection.execute(
                "UPDATE tasks SET phase = ?, finished_at = ?, "
                "callback_pending = callback_url IS NOT NULL WHERE task_id = ? AND phase = ?",
                (str(end.status), end.finished_at, task_id, QUEUED),
            )
            return ended.rowcount > 0

        return await self._database.write(cancel)

    def unfinished(self) -> Sequence[StoredTask]:
        """The tasks whose workers, or files of their users, may still exist; also ended ones.

        None of an invalid row.
        """
        return self._unfinished()[0]

    def unreadable(self) -> Sequence[UnreadableRow]:
        """The invalid rows of unfinished tasks."""
        return self._unfinished()[1]

    def _unfinished(self) -> tuple[Sequence[StoredTask], Sequence[UnreadableRow]]:
        tasks, invalid = [], []
        ended = [str(each) for each in TaskStatus if each.ended]
        for row in self._database.read(
            "SELECT * FROM tasks WHERE phase NOT IN (?, ?, ?, ?) OR pid IS NOT NULL "
            "OR uid IS NOT NULL ORDER BY number",
            (QUEUED, *ended),
        ):
            try:
                tasks.append(task_from(row))
            except UnreadableRow as error:
                invalid.append(error)
        return tasks, invalid

    async def end_unreadable(self, row: UnreadableRow) -> None:
        """Store that a task whose row is invalid has failed."""
        await self._database.write_surely(lambda connection: _end_unreadable(connection, row))

    def pending_callbacks(self, per_account: int) -> Sequence[tuple[str, str]]:
        """Account and task id of ended tasks whose callback is pending, oldest first.

        At most `per_account` of each account.
        """
        found: list[tuple[str, str]] = []
        account: str | None = ""
        while account is not None:
            found += [
                (account, row["task_id"])
                for row in self._database.read(
                    "SELECT task_id FROM tasks WHERE callback_pending AND account = ? "
                    "ORDER BY number LIMIT ?",
                    (account, per_account),
                )
            ]
            [[account]] = self._database.read(
                "SELECT min(account) FROM tasks WHERE callback_pending AND account > ?", (account,)
            )
        return found

    def summary(self, task_id: str) -> TaskRecord | None:
        """A task without its output."""
        rows = self._database.read(
            f"SELECT {SUMMARY}, inputs, error FROM tasks "  # noqa: S608 - constant names
            "WHERE task_id = ?",
            (task_id,),
        )
        return record_from(rows[0]) if rows else None

    async def finish_callback(self, task_id: str) -> None:
        """Store that a callback was delivered or has failed."""
        await self._database.write(
            lambda connection: connection.execute(
                "UPDATE tasks SET callback_pending = 0 WHERE task_id = ?", (task_id,)
            )
        )

    def accounts_with_expired(self, before: datetime) -> Sequence[str]:
        """The accounts that have `expired` tasks."""
        rows = self._database.read(
            f"SELECT DISTINCT account FROM tasks WHERE {_EXPIRED}",  # noqa: S608 - a constant
            (rfc3339(before),),
        )
        return [row["account"] for row in rows]

    def expired(
        self, before: datetime, limit: int, skipped: int = 0, *, account: str | None = None
    ) -> Sequence[str]:
        """Tasks that ended before this, with no callback pending and no worker left.

        Args:
            before: their end.
            limit: the maximum number.
            skipped: this many of them, the oldest, are left out.
            account: whose; None: those of all accounts.
        """
        rows = self._database.read(
            f"SELECT task_id FROM tasks WHERE {_EXPIRED} "  # noqa: S608 - a constant
            "AND account = ifnull(?, account) ORDER BY finished_at, number LIMIT ? OFFSET ?",
            (rfc3339(before), account, limit, skipped),
        )
        return [row["task_id"] for row in rows]

    def removal(self, task_id: str) -> asyncio.Lock:
        """To be held by who removes a task: afterwards its id, and so its folder, can be reused."""
        return self._removals.setdefault(task_id, asyncio.Lock())

    async def is_removable(self, task_id: str) -> bool:
        """Whether a task has ended with all its processes, or does not exist."""
        rows = await self._database.write(
            lambda connection: connection.execute(_UNREMOVABLE, (task_id,)).fetchall()
        )
        return not rows

    def is_expired(self, task_id: str, before: datetime) -> bool:
        """Whether a task is among the `expired` ones."""
        rows = self._database.read(
            f"SELECT 1 FROM tasks WHERE {_EXPIRED} AND task_id = ?",  # noqa: S608 - a constant
            (rfc3339(before), task_id),
        )
        return bool(rows)

    async def remove(self, task_ids: Sequence[str]) -> None:
        """Delete tasks; their ids, and so their Idempotency-Keys, can be used again."""
        marks = ", ".join("?" * len(task_ids))
        statement = f"DELETE FROM tasks WHERE task_id IN ({marks})"  # noqa: S608 - constant texts
        await self._database.write(
            lambda connection: connection.execute(statement, tuple(task_ids))
        )

    # -- the disk

    def occupied(self) -> dict[str, Usage]:
        """What the counted tasks of each account occupy."""
        return {
            row["account"]: disk_rows.usage_from(row)
            for row in self._database.read(disk_rows.OCCUPIED)
        }

    def uncounted(self, ended_max: int) -> Sequence[UncountedTask]:
        """The started tasks that may still grow, and ended ones that are not counted yet.

        Args:
            ended_max: the maximum number of those that cannot grow; the latest come first.
        """
        running = (STARTING, str(TaskStatus.RUNNING))
        found = self._database.read(disk_rows.GROWING, running)
        found += self._database.read(disk_rows.ENDED, (ended_max,))
        return [disk_rows.task_from(row) for row in found]

    async def save_usage(self, task_id: str, usage: Usage) -> None:
        """Store what an ended task occupies, which includes its row."""
        await self._database.write_surely(
            lambda connection: connection.execute(
                disk_rows.SAVE, (usage.files, usage.size_bytes, task_id)
            )
        )

    # -- writing

    async def _update(
        self,
        change: str,
        values: Sequence[object],
        task_id: str,
        from_phases: Sequence[str] | None = None,
    ) -> bool:
        where = "task_id = ?"
        if from_phases is not None:
            where += f" AND phase IN ({', '.join('?' * len(from_phases))})"
        statement = f"UPDATE tasks SET {change} WHERE {where}"  # noqa: S608 - constant texts
        arguments = (*values, task_id, *(from_phases or ()))
        return await self._database.write_surely(
            lambda connection: connection.execute(statement, arguments).rowcount > 0
        )


def _end_unreadable(connection: sqlite3.Connection, row: UnreadableRow) -> None:
    """A final state does not change."""
    ended = [str(each) for each in TaskStatus if each.ended]
    error = {"type": UNREADABLE, "message": f"the stored task cannot be read: {row.why}"}
    connection.execute("UPDATE tasks SET pid = NULL, uid = NULL WHERE number = ?", (row.number,))
    connection.execute(
        "UPDATE tasks SET phase = ?, finished_at = ?, error = ?, "
        "callback_pending = callback_url IS NOT NULL WHERE number = ? AND phase NOT IN (?, ?, ?)",
        (
            str(TaskStatus.FAILED),
            rfc3339(datetime.now(UTC)),
            json.dumps(error),
            row.number,
            *ended,
        ),
    )
