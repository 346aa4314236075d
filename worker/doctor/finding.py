"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters; the text is what the line begins with."""

    OK = "ok"
    WARNING = "warn"
    FAILURE = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about this machine, and what to do about it unless it is all right."""

    level: Level
    what: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.level:<5} {self.what}" + (f": {self.mend}" if self.mend else "")


def ok(what: str) -> Finding:
    """All is well."""
    return Finding(level=Level.OK, what=what)


def warning(what: str, mend: str) -> Finding:
    """A task can run, but worse than it could."""
    return Finding(level=Level.WARNING, what=what, mend=mend)


def failure(what: str, mend: str) -> Finding:
    """No task can run."""
    return Finding(level=Level.FAILURE, what=what, mend=mend)
