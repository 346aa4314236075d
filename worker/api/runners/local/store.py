"""The local runner's memory: its tasks, in SQLite, so that a killed API has forgotten nothing.

One thread writes, each write a transaction that is on the disk when the call returns. Reads are
small and indexed and happen where they are asked for: in WAL mode no writer holds them up.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from worker.api.runners.protocol import Cursor, QueueFull, TaskRecord, TaskRequest, TaskStatus
from worker.errors import SettingError
from worker.events import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STARTING: Final = "starting"
"""The phase in which a worker was perhaps started, and no viewer can connect yet."""
_QUEUED: Final = "queued"
_BUSY_TIMEOUT_S: Final = 10.0
_RETRY_AFTER_S: Final = 10
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tasks (
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
CREATE INDEX IF NOT EXISTS tasks_of_account ON tasks (account, created_at, task_id);
CREATE INDEX IF NOT EXISTS tasks_in_phase ON tasks (phase, number);
CREATE INDEX IF NOT EXISTS workers_noted ON tasks (number) WHERE pid IS NOT NULL;
CREATE INDEX IF NOT EXISTS tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS callbacks_owed ON tasks (number) WHERE callback_owed;
"""
_SUMMARY: Final = (
    "task_id, account, endpoint_name, phase, created_at, digest, timeout_s, callback_url, "
    "started_at, finished_at, exit_code"
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTask:
    """A task as the local runner works on it; `pid_started` is in clock ticks since boot."""

    task_id: str
    file: Path
    inputs: dict[str, Any]
    timeout_s: float
    phase: str
    cancel: bool
    pid: int | None
    pid_started: int | None

    @property
    def ended(self) -> bool:
        """Whether its end is known; its worker may still be clearing away."""
        return _status(self.phase).ended


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a task ended."""

    status: TaskStatus
    started_at: str | None = None
    finished_at: str
    exit_code: int | None = None
    output: Any = None
    error: dict[str, Any] | None = None


class Store:
    """The tasks of one state folder, which one process at a time may open."""

    def __init__(self, file: Path, queue_max: int) -> None:
        """Open or make the file.

        Raises:
            SettingError: it cannot be used.
        """
        self._file = file
        self._queue_max = queue_max
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="store")
        try:
            self._writer = self._writing.submit(self._connect).result()
            self._reader = self._connect()
        except sqlite3.Error as error:
            self._writing.shutdown()
            raise SettingError(f"cannot use {file}: {error}; give another WORKER_STATE_DIR") from (
                error
            )

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        return connection

    async def close(self) -> None:
        """Let the last write finish, and close the file."""
        await self._write(lambda connection: connection.close())
        self._writing.shutdown()
        self._reader.close()

    # -- what a client asks

    async def add(self, request: TaskRequest) -> TaskRecord:
        """Queue a task, unless it is known; its record.

        Raises:
            QueueFull: too many wait already.
        """
        known = self.find(request.account, request.task_id)
        if known is not None:
            return known
        await self._write(lambda connection: self._insert(connection, request))
        added = self.find(request.account, request.task_id)
        if added is None:
            raise LookupError(request.task_id)
        return added

    def _insert(self, connection: sqlite3.Connection, request: TaskRequest) -> None:
        [(waiting,)] = connection.execute(
            "SELECT count(*) FROM tasks WHERE phase = ?", (_QUEUED,)
        ).fetchall()
        if waiting >= self._queue_max:
            raise QueueFull(_RETRY_AFTER_S)
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
                _moment(request.created_at),
                _QUEUED,
            ),
        )

    def find(self, account: str, task_id: str) -> TaskRecord | None:
        """A task of this account; the same look-up for another's as for none."""
        row = self._reader.execute(
            f"SELECT {_SUMMARY}, inputs, output, error FROM tasks "  # noqa: S608 - constant names
            "WHERE task_id = ? AND account = ?",
            (task_id, account),
        ).fetchone()
        return None if row is None else _record(row)

    def list(
        self, account: str, status: TaskStatus | None, before: Cursor | None, limit: int
    ) -> Sequence[TaskRecord]:
        """Tasks of this account, newest first, without inputs and output."""
        wanted, values = "account = ?", [account]
        if status is not None:
            phases = (_QUEUED, STARTING) if status is TaskStatus.QUEUED else (str(status),) * 2
            wanted, values = wanted + " AND phase IN (?, ?)", [*values, *phases]
        if before is not None:
            wanted += " AND (created_at, task_id) < (?, ?)"
            values += [_moment(before.created_at), before.task_id]
        rows = self._reader.execute(
            f"SELECT {_SUMMARY} FROM tasks WHERE {wanted} "  # noqa: S608 - constant texts
            "ORDER BY created_at DESC, task_id DESC LIMIT ?",
            (*values, limit),
        )
        return [_record(row) for row in rows]

    def counts(self) -> dict[TaskStatus, int]:
        """How many tasks are in each status."""
        counts = dict.fromkeys(TaskStatus, 0)
        for phase, count in self._reader.execute(
            "SELECT phase, count(*) FROM tasks GROUP BY phase"
        ):
            counts[_status(phase)] += count
        return counts

    # -- what the runner does

    async def take_next(self) -> StoredTask | None:
        """The task that has waited longest, from now on `starting`; None when none waits."""

        def take(connection: sqlite3.Connection) -> StoredTask | None:
            row = connection.execute(
                "UPDATE tasks SET phase = ? WHERE number = "
                "(SELECT number FROM tasks WHERE phase = ? ORDER BY number LIMIT 1) RETURNING *",
                (STARTING, _QUEUED),
            ).fetchone()
            return None if row is None else _stored(row)

        return await self._write(take)

    async def put_back(self, task_id: str) -> None:
        """The worker never came up: the task waits again, in its old place."""
        await self._change("phase = ?", (_QUEUED,), task_id, from_phases=(STARTING,))

    async def note_process(self, task_id: str, pid: int, pid_started: int) -> bool:
        """The worker's process; returns whether the task was cancelled in the meantime."""
        await self._change("pid = ?, pid_started = ?", (pid, pid_started), task_id)
        return self.is_cancelled(task_id)

    def is_cancelled(self, task_id: str) -> bool:
        """Whether a known task's end was asked for."""
        statement = "SELECT cancel FROM tasks WHERE task_id = ?"
        return bool(self._reader.execute(statement, (task_id,)).fetchone()["cancel"])

    async def note_running(self, task_id: str, started_at: str) -> None:
        """Viewers can connect from now on."""
        await self._change(
            "phase = ?, started_at = ?",
            (str(TaskStatus.RUNNING), started_at),
            task_id,
            from_phases=(STARTING,),
        )

    async def note_gone(self, task_id: str) -> None:
        """An ended task's worker is gone, too."""
        await self._change("pid = NULL", (), task_id)

    async def note_end(self, task_id: str, end: End) -> bool:
        """A task has ended; returns False when that was known already."""
        return await self._change(
            "phase = ?, started_at = coalesce(started_at, ?), finished_at = ?, exit_code = ?, "
            "output = ?, error = ?, callback_owed = callback_url IS NOT NULL",
            (
                str(end.status),
                end.started_at,
                end.finished_at,
                end.exit_code,
                json.dumps(end.output),
                json.dumps(end.error),
            ),
            task_id,
            from_phases=(_QUEUED, STARTING, str(TaskStatus.RUNNING)),
        )

    async def cancel_queued(self, task_id: str, end: End) -> bool:
        """End a task that still waits; otherwise note that its end is wished, and return False."""
        await self._change("cancel = 1", (), task_id)
        return await self._change(
            "phase = ?, finished_at = ?, callback_owed = callback_url IS NOT NULL",
            (str(end.status), end.finished_at),
            task_id,
            from_phases=(_QUEUED,),
        )

    def unfinished(self) -> Sequence[StoredTask]:
        """The tasks whose workers may be alive, ended ones included."""
        rows = self._reader.execute(
            "SELECT * FROM tasks WHERE phase IN (?, ?) OR pid IS NOT NULL ORDER BY number",
            (STARTING, str(TaskStatus.RUNNING)),
        )
        return [_stored(row) for row in rows]

    def callbacks_owed(self) -> Sequence[TaskRecord]:
        """Ended tasks whose callback is owed."""
        rows = self._reader.execute(
            "SELECT * FROM tasks WHERE callback_owed ORDER BY number LIMIT 100"
        )
        return [_record(row) for row in rows]

    async def callback_settled(self, task_id: str) -> None:
        """A callback is owed no more."""
        await self._change("callback_owed = 0", (), task_id)

    def expired(self, before: datetime, limit: int) -> Sequence[str]:
        """Tasks that ended before this, and of which nothing is left to be done."""
        rows = self._reader.execute(
            "SELECT task_id FROM tasks WHERE finished_at IS NOT NULL AND finished_at < ? "
            "AND pid IS NULL AND NOT callback_owed ORDER BY finished_at LIMIT ?",
            (rfc3339(before), limit),
        )
        return [row["task_id"] for row in rows]

    async def remove(self, task_ids: Sequence[str]) -> None:
        """Forget tasks; their ids, and so their Idempotency-Keys, are free again."""
        marks = ", ".join("?" * len(task_ids))
        statement = f"DELETE FROM tasks WHERE task_id IN ({marks})"  # noqa: S608 - constant texts
        await self._write(lambda connection: connection.execute(statement, tuple(task_ids)))

    # -- how it is written

    async def _change(
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
        return await self._write(
            lambda connection: connection.execute(statement, arguments).rowcount > 0
        )

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writing, lambda: work(self._writer))


def _moment(when: datetime) -> str:
    """Text that sorts as the moments do (all are in UTC)."""
    return when.isoformat(timespec="microseconds")


def _status(phase: str) -> TaskStatus:
    return TaskStatus.QUEUED if phase == STARTING else TaskStatus(phase)


def _stored(row: sqlite3.Row) -> StoredTask:
    return StoredTask(
        task_id=row["task_id"],
        file=Path(row["file"]),
        inputs=json.loads(row["inputs"]),
        timeout_s=row["timeout_s"],
        phase=row["phase"],
        cancel=bool(row["cancel"]),
        pid=row["pid"],
        pid_started=row["pid_started"],
    )


def _record(row: sqlite3.Row) -> TaskRecord:
    names = row.keys()
    whole = {
        name: json.loads(row[name])
        for name in ("inputs", "output", "error")
        if name in names and row[name] is not None
    }
    return TaskRecord(
        task_id=row["task_id"],
        account=row["account"],
        endpoint_name=row["endpoint_name"],
        status=_status(row["phase"]),
        created_at=datetime.fromisoformat(row["created_at"]),
        digest=row["digest"],
        timeout_s=row["timeout_s"],
        callback_url=row["callback_url"],
        started_at=datetime.fromisoformat(row["started_at"]) if row["started_at"] else None,
        finished_at=datetime.fromisoformat(row["finished_at"]) if row["finished_at"] else None,
        exit_code=row["exit_code"],
        **whole,
    )
