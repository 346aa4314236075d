"""Artifacts: the files that stay when the session is gone."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.errors import SettingError

_RESULT: Final = "result.json"
_LOG: Final = "task.log"


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

        Raises:
            OSError: the folder is gone, full or read-only.
        """
        descriptor, draft = tempfile.mkstemp(dir=self.folder, prefix=".result-")
        try:
            with os.fdopen(descriptor, "w") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(self.result)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise


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
