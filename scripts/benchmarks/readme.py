"""What the README shows: the table between its marks, and the picture of the stages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import stages_picture

if TYPE_CHECKING:
    from benchmarks.line import Line
    from benchmarks.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PICTURE = ROOT / "worker/examples/stages.svg"
HEAD = (
    "| | what | worker | against | compared | aim | |",
    "|---|---|---|---|---|---|---|",
)


def table(lines: list[Line], plan: Plan, machine: str) -> str:
    """The table in Markdown."""
    taken = f"Median (min–max) of {plan.pairs}, taken in turns; {machine}."
    skipped = [f"Skipped: {why}." for why in plan.skipped]
    return "\n".join([*HEAD, *(line.row() for line in lines), "", taken, *skipped])


def write(text: str, stages_ms: dict[str, int]) -> None:
    """Put the table between the README's marks and draw the picture."""
    before = README.read_text()
    after, count = re.subn(
        r"(<!-- bench -->\n).*?(<!-- /bench -->)",
        lambda match: f"{match[1]}{text}\n{match[2]}",
        before,
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit("bench: the README has no <!-- bench --> … <!-- /bench --> marks")
    README.write_text(after)
    if stages_ms:
        PICTURE.write_text(stages_picture.draw(stages_ms))
