"""A SQLite file with one writing thread.

Each write is a transaction that is on the disk when the call returns. Reads are small and indexed
and run in the caller's thread: in WAL mode no writer blocks them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from worker.api.runners.local import schema
from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_BUSY_TIMEOUT_S: Final = 10.0

T = TypeVar("T")


class Database:
    """The file of one state folder, which one process at a time may open."""

    def __init__(self, file: Path) -> None:
        """Open or create the file.

        Raises:
            SettingError: the file cannot be used.
        """
        self._file = file
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="store")
        try:
            self._writer = self._writing.submit(self._connect).result()
            self._reader = self._connect()
        except (sqlite3.Error, schema.UnknownVersion) as error:
            self._writing.shutdown()
            raise SettingError(
                f"WORKER_STATE_DIR: cannot use {file}: {error}; set another folder"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._file, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        schema.prepare(connection)
        return connection

    def read(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Execute a statement that changes nothing."""
        return self._reader.execute(statement, values)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call `work` in the writing thread, after the writes before it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writing, lambda: work(self._writer))

    async def close(self) -> None:
        """Finish the last write and close the file."""
        await self.write(lambda connection: connection.close())
        self._writing.shutdown()
        self._reader.close()
