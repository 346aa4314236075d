"""Endpoints: the task files of a folder, named by their stems, checked without running them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker import examples
from worker.errors import SettingError, TargetError
from worker.task import target

if TYPE_CHECKING:
    from worker.settings.serve import ServeSettings

NAME_PATTERN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")


class Endpoints:
    """The task files of one folder; a changed file is checked again."""

    def __init__(self, folder: Path) -> None:
        """Use a folder.

        Raises:
            SettingError: it does not exist.
        """
        if not folder.is_dir():
            raise SettingError(
                f"WORKER_ENDPOINTS_DIR: {folder} is not a folder; create it, with task files in it"
            )
        self._folder = folder.resolve()
        self._checked: dict[Path, int] = {}

    def names(self) -> list[str]:
        """The names of all endpoints, sorted."""
        return sorted(file.stem for file in self._folder.glob("*.py") if self._is_endpoint(file))

    def find(self, name: str) -> Path | None:
        """The file of an endpoint; None if there is none.

        Raises:
            TargetError: its file cannot be run.
        """
        if not NAME_PATTERN.fullmatch(name):
            return None
        file = self._folder / f"{name}.py"
        try:
            changed_at = file.stat().st_mtime_ns
        except OSError:
            return None
        if self._checked.get(file) != changed_at:
            self._checked.pop(file, None)
            _check(file, name)
            self._checked[file] = changed_at
        return file

    @staticmethod
    def _is_endpoint(file: Path) -> bool:
        return NAME_PATTERN.fullmatch(file.stem) is not None and file.is_file()


def endpoints_folder(settings: ServeSettings) -> Path:
    """The configured folder, or the package's examples."""
    return (settings.endpoints_dir or Path(examples.__file__).parent).expanduser().absolute()


def _check(file: Path, name: str) -> None:
    try:
        target.function(str(file))
    except TargetError as error:
        # The message has the server's own paths, which clients must not see.
        why = str(error).replace(str(file), file.name)
        raise TargetError(f"endpoint {name} cannot be run: {why}") from error
