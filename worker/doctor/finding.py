"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How severe a finding is; its line begins with the value."""

    OK = "ok"
    WARNING = "warn"
    FAILURE = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A fact about this machine.

    Attributes:
        what: the fact.
        remedy: what to do about it; empty if the level is OK.
    """

    level: Level
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:<5} {self.what}" + (f": {self.remedy}" if self.remedy else "")


def ok(what: str) -> Finding:
    """Nothing to do."""
    return Finding(level=Level.OK, what=what)


def warning(what: str, remedy: str) -> Finding:
    """Tasks can run, but slower, less secure or with fewer functions."""
    return Finding(level=Level.WARNING, what=what, remedy=remedy)


def failure(what: str, remedy: str) -> Finding:
    """Tasks cannot run."""
    return Finding(level=Level.FAILURE, what=what, remedy=remedy)
