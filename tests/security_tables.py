"""The tables of the security model in worker/README.md, and comparisons with what was measured."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import readmes
from worker_run import PROGRAMS

README = readmes.ROOT / "worker/README.md"
ENDPOINTS = PROGRAMS / "isolation"
CELLS = ("yes", "own", "no")
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")


def table(name: str) -> dict[str, dict[str, str]]:
    """A table between the markers of this name: by column, the cell of each row."""
    text = readmes.section(README, name)
    assert text is not None, name
    head = [cell.strip() for cell in text.strip().splitlines()[0].strip("|").split("|")]
    rows = readmes.rows(text)
    assert all(len(row) == len(head) for row in rows)
    return {column: {row[0]: row[at] for row in rows} for at, column in enumerate(head) if at > 0}


def enforced() -> list[str]:
    """The claims of the table "Enforced"."""
    text = readmes.section(README, "enforced")
    assert text is not None
    return [row[0] for row in readmes.rows(text)]


def cell(possible: Mapping[str, Sequence[Any]]) -> str:
    """The cell for what was possible: on others' targets, on own ones only, on none."""
    return "yes" if possible["other"] else "own" if possible["own"] else "no"


def differences(column: str, possible: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
    """The rows whose cell differs from what was possible: the cell, and what was possible.

    Yama (ptrace(2)) may deny a task more than the table.
    """
    expected = table("access of a task")[column]
    assert expected.keys() == possible.keys()
    stricter = _YAMA.exists() and _YAMA.read_text().strip() != "0"
    return {
        row: (expected[row], found)
        for row, found in possible.items()
        if cell(found) != expected[row]
        and not (stricter and row.startswith("trace") and cell(found) == "no")
    }


def probes() -> ModuleType:
    """The module `probes` of the attacker, which tests cannot import by name."""
    spec = importlib.util.spec_from_file_location("probes", ENDPOINTS / "probes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["probes"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module
