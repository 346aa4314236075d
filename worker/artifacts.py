"""Artifacts: the files that stay when the session is gone."""

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
BRIEF_MAX_BYTES: Final = 4096  # the kubelet reads no more of a termination message
_MESSAGE_MAX_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """One task's artifacts folder."""

    folder: Path

    @property
    def result(self) -> Path:
        """Where the outcome is written."""
        return self.folder / _RESULT

    @property
    def log(self) -> Path:
        """Where the task's own output is written."""
        return self.folder / _LOG

    def write_result(self, text: str) -> None:
        """Write the outcome: whoever looks sees the whole of it or none.

        Args:
            text: JSON.

        Raises:
            OSError: the folder is gone, full or read-only.
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


def write_brief(file: Path, result: Mapping[str, Any]) -> None:
    """Write an outcome to a file that is there already, as far as BRIEF_MAX_BYTES reach.

    What is too long is left out, the least telling first; `output_omitted` says that the output is.

    Raises:
        OSError: it cannot be written.
    """
    if file.exists():
        file.write_bytes(brief(result))


def brief(result: Mapping[str, Any]) -> bytes:
    """`status`, `exit_code`, `output` and `error` as JSON of at most BRIEF_MAX_BYTES."""
    error = result["error"]
    short = error and {**error, "traceback": None, "message": error["message"][:_MESSAGE_MAX_CHARS]}
    whole = {name: result[name] for name in ("status", "exit_code", "output", "error")}
    tries = (
        whole,
        {**whole, "error": error and {**error, "traceback": None}},
        {**whole, "output": None, "output_omitted": True, "error": short},
    )
    for each in tries:
        text = json.dumps(each, ensure_ascii=False, separators=(",", ":"))
        content = text.encode(errors="backslashreplace")
        if len(content) <= BRIEF_MAX_BYTES:
            break
    return content


def prepare(folder: Path) -> Artifacts:
    """Make the folder and empty it of an earlier run's result.

    Raises:
        SettingError: it cannot be written.
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
