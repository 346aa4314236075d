"""Artifacts: the files that a task leaves."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

_RESULT: Final = "result.json"
_LOG: Final = "task.log"
# The kubelet reads no more of a termination message.
TERMINATION_MESSAGE_MAX_BYTES: Final = 4096
_MESSAGE_MAX_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """One task's artifacts folder."""

    folder: Path

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
        descriptor, draft = tempfile.mkstemp(dir=self.folder, prefix=".result-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                # Half a surrogate pair has no UTF-8; its backslash escape is JSON's own.
                file.write(f"{text}\n".encode(errors="backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(self.result)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise


def write_termination_message(file: Path, result: Mapping[str, Any]) -> None:
    """Write an outcome to a file, if it exists: the kubelet creates it (terminationMessagePath).

    Raises:
        OSError: it cannot be written.
    """
    if file.exists():
        file.write_bytes(termination_message(result))


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
    artifacts = Artifacts(folder=folder.absolute())
    try:
        artifacts.folder.mkdir(parents=True, exist_ok=True)
        artifacts.result.unlink(missing_ok=True)
        artifacts.log.write_bytes(b"")
    except OSError as error:
        raise SettingError(
            f"cannot write to the artifacts folder {folder}: {error.strerror}; "
            "give another --artifacts-dir"
        ) from error
    return artifacts
