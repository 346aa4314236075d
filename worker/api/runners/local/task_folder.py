"""The folder of a task in the local runner's state: what its worker leaves on the disk.

    lock           locked (flock(2)) by the worker while it exists: it inherits the descriptor, so
                   the lock is never free while the worker exists
    events.jsonl   the worker's events; the first is written before the task is started
    stderr         the worker's error output
    artifacts/     the task's artifacts, `result.json` among them
    home/, tmp/    the task's home and temporary folders

The folder belongs to the API: a task that is isolated can access the last three only.

After the API process was killed, a free lock means that no worker exists, and an empty events.jsonl
that none ever began: only such a task may be started again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker import stale_sessions, trees
from worker.api.runners import files, results
from worker.api.runners.local import channel
from worker.api.runners.machine_faults import prevents_reading
from worker.errors import SettingError
from worker.surroundings import temporary

if TYPE_CHECKING:
    from worker.api.runners.results import Found

_STDERR_TAIL_BYTES: Final = 2000
_REMOVAL_LIMIT_S: Final = 60.0


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

    @property
    def home(self) -> Path:
        """The worker's current folder, and with a uid of its own also its home."""
        return self.path / "home"

    @property
    def tmp(self) -> Path:
        """What a worker with a uid of its own sees as /tmp."""
        return self.path / "tmp"

    @property
    def writable(self) -> tuple[Path, ...]:
        """The folders that the task may write."""
        return self.artifacts, self.home, self.tmp

    def worker_exists(self) -> bool:
        """Whether a worker holds the lock.

        Raises:
            OSError: the machine prevents that it is opened (`machine_faults`).
        """
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if prevents_reading(error):
                raise
            return False  # there is none, or the task replaced it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def has_events(self) -> bool:
        """Whether a worker has ever emitted an event.

        Raises:
            OSError: the machine prevents that it is read (`machine_faults`).
        """
        try:
            return self.events.lstat().st_size > 0
        except OSError as error:
            if prevents_reading(error):
                raise
            return False

    def has_begun(self) -> bool:
        """Whether the worker may have started the task's code.

        Raises:
            OSError: the machine prevents that it is read (`machine_faults`).
        """
        return channel.has_event(self.events, channel.TASK_STARTING)

    def result(self, *, account: str = "") -> Found:
        """`result.json`, which the task may have replaced. Blocks while a large one is parsed.

        Args:
            account: see `results.read_file`.

        Raises:
            OSError: the machine prevents that it is read (`machine_faults`).
        """
        return results.read_file(self.artifacts, account=account)

    def remove(self) -> str | None:
        """Remove the folder, in at most a minute; returns why it still exists."""
        with contextlib.suppress(OSError):  # it is a folder, unless the task replaced it
            self.path.unlink()
        left = trees.remove(self.path, limit_s=_REMOVAL_LIMIT_S)
        return left[0] if left else None

    def remove_session(self) -> None:
        """Remove what a worker has left that was killed before it could do so.

        The event can name any folder: that of a session whose worker exists is not touched.
        """
        if (session := self.session()) is not None:
            list(stale_sessions.remove(session.parent, only=session.name))

    def session(self) -> Path | None:
        """The session's folder, as the worker's first event names it, if sessions are there.

        Raises:
            OSError: the machine prevents that it is read (`machine_faults`).
        """
        first = channel.parse(_read(self.events, 0, channel.LINE_MAX_BYTES).partition(b"\n")[0])
        if first is None:
            return None
        try:
            session = Path(first.fields["folder"])
            parent = temporary.parent(os.environ)
        except (KeyError, TypeError, ValueError, SettingError):
            return None
        is_session = session.parent == parent and session.name.startswith(temporary.PREFIX)
        return session if is_session else None

    def stderr_tail(self) -> str:
        """The last 2000 bytes of the worker's stderr."""
        return (
            _read(self.stderr, -_STDERR_TAIL_BYTES, _STDERR_TAIL_BYTES)
            .decode(errors="replace")
            .strip()
        )


def _read(file: Path, begin: int, size_bytes: int) -> bytes:
    """A part of a file that the task may have replaced; without links and without waiting.

    Args:
        file: the file.
        begin: where to begin; negative: from the end.
        size_bytes: the maximum number of bytes.

    Raises:
        OSError: the machine prevents that it is read (`machine_faults`).
    """
    try:
        opened = files.regular_file(os.open(file, files.READ_FILE))
    except OSError as error:
        if prevents_reading(error):
            raise
        return b""
    if opened is None:
        return b""
    with opened:
        if begin < 0:
            begin = max(0, os.fstat(opened.fileno()).st_size + begin)
        return os.pread(opened.fileno(), size_bytes, begin)
