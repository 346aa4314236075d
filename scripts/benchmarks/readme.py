"""Writes this folder's README: the table between its markers, and the picture of the stages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import stages_picture

if TYPE_CHECKING:
    from benchmarks.plan import Plan
    from benchmarks.table_line import Line

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"
PICTURE = FOLDER / "stages.svg"
HEAD = (
    "| | what | worker | against | compared | aim | |",
    "|---|---|---|---|---|---|---|",
)


def table(lines: list[Line], plan: Plan, machine: str) -> str:
    """The table in Markdown."""
    taken = f"Median (min–max) of {plan.pairs}, measured alternately; {machine}."
    skipped = [f"Skipped: {why}." for why in plan.skipped]
    return "\n".join([*HEAD, *(line.row() for line in lines), "", taken, *skipped])


def write(text: str, stages_ms: dict[str, int]) -> None:
    """Replace the table between the markers and draw the picture."""
    before = README.read_text()
    after, count = re.subn(
        r"(<!-- bench -->\n).*?(<!-- /bench -->)",
        lambda match: f"{match[1]}{text}\n{match[2]}",
        before,
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(f"bench: {README} has no <!-- bench --> … <!-- /bench --> markers")
    README.write_text(after)
    if stages_ms:
        PICTURE.write_text(stages_picture.draw(stages_ms))
