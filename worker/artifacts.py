"""Artifacts: the files that a task leaves.

A task can write to the folder, and so can a task of a former run: names in it are hostile. They are
opened relative to the folder (openat(2)), and no link is followed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_RESULT: Final = "result.json"
_LOG: Final = "task.log"
# The kubelet reads no more of a termination message.
TERMINATION_MESSAGE_MAX_BYTES: Final = 4096
_MESSAGE_MAX_CHARS: Final = 500


_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
# O_NONBLOCK: opening a FIFO would wait for its reader.
_WRITE: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_MODE: Final = 0o644
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """One task's artifacts folder.

    Attributes:
        folder: its path, which the task may make lead to another folder.
        descriptor: the folder itself, open; None: it is opened when it is needed.
    """

    folder: Path
    descriptor: int | None = None

    @property
    def result(self) -> Path:
        """The file with the outcome."""
        return self.folder / _RESULT

    @property
    def log(self) -> Path:
        """The file with the output of the task's process."""
        return self.folder / _LOG

    def write_result(self, text: str) -> None:
        """Write the outcome atomically: a reader finds all of it or no file.

        Args:
            text: JSON.

        Raises:
            OSError: the folder does not exist, is full or is read-only.
        """
        at = _open_folder(self.folder) if self.descriptor is None else self.descriptor
        draft = f".result-{_random()}"
        try:
            with os.fdopen(os.open(draft, _CREATE, _MODE, dir_fd=at), "wb") as file:
                os.fchmod(file.fileno(), _MODE)
                # Half a surrogate pair has no UTF-8; its backslash escape is JSON's own.
                file.write(f"{text}\n".encode(errors="backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
            if _is_folder(at, _RESULT):
                _remove(at, _RESULT)
            os.replace(draft, _RESULT, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=at)
            raise
        finally:
            if self.descriptor is None:
                os.close(at)


def result_text(result: Mapping[str, Any]) -> str:
    """An outcome as JSON, one field a line; the fields themselves without indentation.

    An output takes at most the size that `worker.task.output` limits.
    """
    lines = (
        f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in result.items()
    )
    return "{\n" + ",\n".join(lines) + "\n}"


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending, unbuffered; what is no regular file in its place is removed.

    The task may replace the file at any time, by a link or a FIFO for example.

    Raises:
        OSError: the folder does not exist, or cannot be written to.
    """
    at = _open_folder(path.parent)
    try:
        for _ in range(_ATTEMPTS):
            try:
                descriptor = os.open(path.name, _WRITE | os.O_APPEND, dir_fd=at)
            except OSError:  # missing; or a link (ELOOP), a FIFO (ENXIO), a folder (EISDIR)
                _remove(at, path.name)
                with contextlib.suppress(FileExistsError):
                    descriptor = os.open(path.name, _CREATE | os.O_APPEND, _MODE, dir_fd=at)
                    return os.fdopen(descriptor, "ab", buffering=0)
                continue
            if _is_own_file(descriptor):
                return os.fdopen(descriptor, "ab", buffering=0)
            os.close(descriptor)
            _remove(at, path.name)
    finally:
        os.close(at)
    raise OSError(errno.EBUSY, "another process replaces it again and again", str(path))


def write_termination_message(file: Path, result: Mapping[str, Any]) -> None:
    """Write an outcome to a file, if it exists: the kubelet creates it (terminationMessagePath).

    Raises:
        OSError: it cannot be written, or the task has replaced it.
    """
    try:
        descriptor = os.open(file, _WRITE)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "wb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(file))
        opened.truncate(0)
        opened.write(termination_message(result))


def termination_message(result: Mapping[str, Any]) -> bytes:
    """`status`, `exit_code`, `output` and `error` in at most TERMINATION_MESSAGE_MAX_BYTES.

    If that is too little, the traceback is left out, then the output, which `output_omitted`
    reports.
    """
    error = result["error"]
    short = error and {**error, "traceback": None, "message": error["message"][:_MESSAGE_MAX_CHARS]}
    whole = {name: result[name] for name in ("status", "exit_code", "output", "error")}
    attempts = (
        whole,
        {**whole, "error": error and {**error, "traceback": None}},
        {**whole, "output": None, "output_omitted": True, "error": short},
    )
    for attempt in attempts:
        text = json.dumps(attempt, ensure_ascii=False, separators=(",", ":"))
        content = text.encode(errors="backslashreplace")
        if len(content) <= TERMINATION_MESSAGE_MAX_BYTES:
            break
    return content


def prepare(folder: Path) -> Artifacts:
    """Create the folder, and remove an earlier run's result and log from it.

    Raises:
        SettingError: it cannot be written to.
    """
    artifacts = folder.absolute()
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        at = _open_folder(artifacts)
        for name in (_RESULT, _LOG):
            _remove(at, name)
        os.close(os.open(_LOG, _CREATE, _MODE, dir_fd=at))
    except OSError as error:
        raise SettingError(
            f"cannot write to the artifacts folder {folder}: {error.strerror}; "
            "give another --artifacts-dir"
        ) from error
    return Artifacts(folder=artifacts, descriptor=at)


def _open_folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def _is_own_file(descriptor: int) -> bool:
    """Whether it is a regular file with no other name: a hard link may lead out of the folder."""
    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _is_folder(at: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove(at: int, name: str) -> None:
    """Remove what is in a file's place; a folder is hidden, because it may contain anything.

    Raises:
        OSError: it is a device, which an administrator has made.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise OSError(errno.ENODEV, "a device is not removed", name)
        if stat.S_ISDIR(mode):
            os.rename(name, f".replaced-{_random()}", src_dir_fd=at, dst_dir_fd=at)
        else:
            os.unlink(name, dir_fd=at)


def _random() -> str:
    return os.urandom(8).hex()
