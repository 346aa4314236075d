"""Code and documents use plain technical English: no personification and no narrative idioms."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]

CHECKED: Final = (".",)
"""The paths that are checked; `.` checks the whole repository."""

GLOBS: Final = (
    *("*.py", "*.md", "*.toml", "*.yaml", "*.yml"),
    *("*.js", "*.jsx", "*.ts", "*.html", "*.css"),
    *("*.sh", "scripts/*", ".ci/*", "*Makefile", "*Dockerfile"),
)
GENERATED: Final = ("__pycache__", "artifacts", "build", "dist", "node_modules")
EXCLUDED: Final = ("tests/unit/test_wording.py", "scripts/constraints.txt")

PATTERNS: Final = {
    r"who(?:so)?ever": "name the role: the viewer, the caller, the process",
    r"(?:some|no|any)body": "name the role, or use the passive: no viewer is connected",
    r"\bmend(?:s|ed|ing)?\b": "fix, repair, recover",
    r"\btread(?:s|ing)?\b": "conflict with, overwrite",
    r"\bknock(?:s|ed|ing)?\b": "connect",
    r"\b(?:is|are|was|were|be|been|being) told\b": "receives, is notified",
    r"\btells? (?:who|every|each|the) (?:viewer|one)s?\b": "notifies",
    r"\b(?:is|are|was|were|be) (?:owed|lent)\b": "pending, leased",
    r"\bfor want of\b": "without, because of missing",
    r"\bas (?:it|they) (?:is|are) wished\b": "as requested",
    r"\bnone of ours\b": "invalid, not from this program",
    r"(?<!-)\bfor ?ever\b": "without a limit, until …",
    r"\bin the meantime\b": "while …",
    r"\bgoes away\b": "disconnects, ends, is deleted",
    r"\bhears? (?:of|from|what|that)\b": "receives",
    r"\bas it (?:should|ought to) be\b": "state the expected value",
}


def _files() -> list[Path]:
    """The checked files, relative to the root, without hidden and generated folders."""
    found = []
    for top in CHECKED:
        for folder, folders, names in os.walk(ROOT / top):
            folders[:] = [name for name in folders if not _is_generated(name)]
            found += [(Path(folder) / name).relative_to(ROOT) for name in names]
        if (ROOT / top).is_file():
            found.append(Path(top))
    return [
        path
        for path in found
        if path.as_posix() not in EXCLUDED and any(path.match(glob) for glob in GLOBS)
    ]


def _is_generated(folder: str) -> bool:
    hidden = folder.startswith(".") and folder != ".ci"
    return hidden or folder in GENERATED or folder.endswith(".egg-info")


def _found(path: Path) -> list[str]:
    lines = (ROOT / path).read_text(errors="replace").splitlines()
    return [
        f"{path}:{number}: {match[0]!r}: {instead}"
        for number, line in enumerate(lines, start=1)
        for pattern, instead in PATTERNS.items()
        for match in re.finditer(pattern, line, re.IGNORECASE)
    ]


def test_no_narrative_wording():
    """No checked file contains one of the patterns; each is reported with its replacement."""
    files = _files()
    assert files
    assert [line for path in files for line in _found(path)] == []


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("Whoever connects", 1),
        ("nobody watches", 1),
        ("the viewer is told", 1),
        ("as a recommended amendment", 0),
        ("kept for ever", 1),
        ('"-forever"', 0),
    ],
)
def test_patterns(text, matches):
    """The patterns match whole words, and not x11vnc's option `-forever`."""
    found = [each for each in PATTERNS if re.search(each, text, re.IGNORECASE)]
    assert len(found) == matches
