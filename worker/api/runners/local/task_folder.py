"""The folder of a task in the local runner's state: what its worker leaves on the disk.

    lock           locked (flock(2)) by the worker while it exists: it inherits the descriptor, so
                   the lock is never free while the worker exists
    events.jsonl   the worker's events; the first is written before the task is started
    stderr         the worker's error output
    artifacts/     the task's artifacts, `result.json` among them

After the API process was killed, a free lock means that no worker exists, and an empty events.jsonl
that none ever began: only such a task may be started again.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, Field

from worker.api.runners.protocol import TaskStatus
from worker.errors import SettingError
from worker.surroundings import temporary

EXIT_CODE_MAX: Final = 255
_STDERR_TAIL_BYTES: Final = 2000


class Result(BaseModel):
    """A valid `result.json`; the task can write anything in its place."""

    status: Literal[TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.CANCELLED]
    exit_code: int = Field(ge=0, le=EXIT_CODE_MAX)
    output: Any
    error: dict[str, Any] | None
    started_at: AwareDatetime
    finished_at: AwareDatetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFolder:
    """The folder of one task; see the module's docstring."""

    path: Path

    @property
    def lock(self) -> Path:
        """Locked while the worker exists."""
        return self.path / "lock"

    @property
    def events(self) -> Path:
        """The worker's stdout."""
        return self.path / "events.jsonl"

    @property
    def stderr(self) -> Path:
        """The worker's stderr."""
        return self.path / "stderr"

    @property
    def artifacts(self) -> Path:
        """The task's artifacts."""
        return self.path / "artifacts"

    def worker_exists(self) -> bool:
        """Whether a worker holds the lock."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def has_events(self) -> bool:
        """Whether a worker has ever emitted an event."""
        try:
            return self.events.stat().st_size > 0
        except FileNotFoundError:
            return False

    def result(self) -> Result | None:
        """`result.json`; None if it is missing or invalid."""
        try:
            text = (self.artifacts / "result.json").read_bytes()
            # Python accepts NaN and unpaired surrogates; JSON, and so the API's answers, cannot.
            result = json.loads(text, parse_constant=str)
            if b"\\ud" in text.lower():
                whole = json.dumps(result, ensure_ascii=False).encode(errors="replace")
                result = json.loads(whole)
            return Result.model_validate(result)
        except (OSError, ValueError, RecursionError):
            return None

    def remove_session(self) -> None:
        """Remove the temporary folder of a worker that was killed before it could do so."""
        try:
            with self.events.open("rb") as file:
                session = Path(json.loads(file.readline())["folder"])
            parent = temporary.parent(os.environ)
        except (OSError, ValueError, KeyError, TypeError, SettingError):
            return
        if session.parent == parent and session.name.startswith(temporary.PREFIX):
            shutil.rmtree(session, ignore_errors=True)

    def stderr_tail(self) -> str:
        """The last 2000 bytes of the worker's stderr."""
        try:
            with self.stderr.open("rb") as file:
                file.seek(max(0, self.stderr.stat().st_size - _STDERR_TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""
