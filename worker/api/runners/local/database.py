"""A SQLite file with one writing thread.

Each write is a transaction that is on the disk when the call returns. Reads are small and indexed
and run in the caller's thread: in WAL mode no writer blocks them.

When a write or a read fails (a full, failing, read-only or locked disk), the file is lost: writes
for clients fail at once with RunnerUnavailable, and the runner's own (`write_surely`) wait. A probe
that writes as much as the start of a task needs is repeated until it succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final, TypeVar

from worker.api.runners.availability import Availability
from worker.api.runners.background import BackgroundTasks, back_off_s
from worker.api.runners.local import schema
from worker.api.runners.machine_faults import describe
from worker.api.runners.protocol import RunnerUnavailable
from worker.api.runners.threads import Threads
from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_WRITE_BUSY_TIMEOUT_S: Final = 0.5
_READ_BUSY_TIMEOUT_S: Final = 0.2
"""Short: reads run in the event loop, and in WAL mode only a foreign program can lock them out."""
_PROBE_BYTES: Final = 128 << 10
_PROBE_PERIOD_S: Final = 0.5

T = TypeVar("T")


class Database:
    """The file of one state folder, which one process at a time may open."""

    def __init__(self, file: Path, availability: Availability | None = None) -> None:
        """Open or create the file.

        Args:
            file: the SQLite file.
            availability: where losing and finding it again is recorded.

        Raises:
            SettingError: the file cannot be used.
        """
        self._file = file
        self._availability = availability or Availability(lambda *_, **__: None)
        self._background = BackgroundTasks()
        self._usable = asyncio.Event()
        self._usable.set()
        self._writing = Threads(1, "store")
        try:
            self._writer = self._writing.submit(self._connect, _WRITE_BUSY_TIMEOUT_S).result()
            self._reader = self._connect(_READ_BUSY_TIMEOUT_S)
        except (sqlite3.Error, schema.UnknownVersion) as error:
            self._writing.close()
            raise SettingError(
                f"WORKER_STATE_DIR: cannot use {file}: {error}; set another folder"
            ) from error

    def _connect(self, busy_timeout_s: float) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        schema.prepare(connection)
        return connection

    def read(self, statement: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """The rows of a statement that changes nothing.

        Raises:
            RunnerUnavailable: the file cannot be read.
        """
        try:
            return self._reader.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError, MemoryError) as error:
            raise self._lost("read", error) from error

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call `work` in the writing thread, after the writes before it, in one transaction.

        Raises:
            RunnerUnavailable: the file cannot be written; nothing was changed.
        """
        if self._availability.why_lost is not None:
            raise RunnerUnavailable(self._availability.why_lost)
        return await self._write(work)

    async def write_surely(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`write`, repeated with back-off until the file can be written."""
        failures = 0
        while True:
            await self.usable()
            with contextlib.suppress(RunnerUnavailable):
                return await self._write(work)
            failures += 1
            await asyncio.sleep(back_off_s(failures))

    async def usable(self) -> None:
        """Return when the file is not lost."""
        await self._usable.wait()

    async def close(self) -> None:
        """Finish the last write and close the file."""
        await self._background.cancel()
        await self._writing.call(self._writer.close)
        self._writing.join()
        self._reader.close()

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._writing.call(self._transaction, work)
        except (sqlite3.Error, OSError, MemoryError) as error:
            raise self._lost("write", error) from error

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            result = work(self._writer)
            self._writer.execute("COMMIT")
        except BaseException:
            # After some errors SQLite has rolled back by itself (sqlite.org/lang_transaction.html).
            if self._writer.in_transaction:
                self._writer.rollback()
            raise
        return result

    def _lost(self, what: str, error: Exception) -> RunnerUnavailable:
        why = f"cannot {what} {self._file}: {describe(error)}"
        self._availability.lost(why)
        if self._usable.is_set():
            self._usable.clear()
            self._background.start(self._find())
        return RunnerUnavailable(why)

    async def _find(self) -> None:
        while not self._usable.is_set():
            await asyncio.sleep(_PROBE_PERIOD_S)
            with contextlib.suppress(sqlite3.Error, OSError, MemoryError):
                await self._writing.call(self._probe)
                self._reader.execute("SELECT 1 FROM tasks LIMIT 1").fetchall()
                self._usable.set()
        self._availability.found()

    def _probe(self) -> None:
        """Write to the file, and beside it as much as the start of a task needs."""
        # The transaction writes a page even though the value stays the same.
        self._transaction(
            lambda connection: connection.execute(f"PRAGMA user_version = {schema.VERSION}")
        )
        probe = self._file.with_name("probe")
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            left = memoryview(bytes(_PROBE_BYTES))
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            probe.unlink()
