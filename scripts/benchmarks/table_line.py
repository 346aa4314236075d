"""A line of the table: the measurements, their baseline, and the aim."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median, minimum and maximum of some measurements."""

    median: float
    low: float
    high: float
    count: int

    def text(self, unit: str, *, ends: bool = True) -> str:
        """The text for the table; `ends` includes minimum and maximum."""
        ends_text = f" ({_short(self.low)}–{_short(self.high)})" if ends else ""
        return f"{_short(self.median)}{ends_text}{unit}"


def spread(values: list[float]) -> Spread:
    return Spread(
        median=statistics.median(values), low=min(values), high=max(values), count=len(values)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One comparison: pairs of measurements, taken alternately.

    Attributes:
        key: the letter of the table's row.
        compare: `ratio`, `difference`, or `value`, which has no baseline.
        limit: the aim for the comparison's median, an upper limit unless `at_least`; None: no aim.
    """

    key: str
    what: str
    against: str
    unit: str
    ours: list[float]
    base: list[float] = field(default_factory=list)
    compare: str = "ratio"
    limit: float | None
    at_least: bool = False
    note: str = ""

    @property
    def compared(self) -> Spread:
        """The spread of the pairs' ratios or differences, or of the values."""
        pairs = zip(self.ours, self.base, strict=True)
        if self.compare == "ratio":
            return spread([ours / base for ours, base in pairs])
        if self.compare == "difference":
            return spread([ours - base for ours, base in pairs])
        return spread(self.ours)

    @property
    def met(self) -> bool:
        """Whether the median meets the aim; true without an aim."""
        found = self.compared.median
        if self.limit is None:
            return True
        return found >= self.limit if self.at_least else found <= self.limit

    def row(self) -> str:
        """The row in Markdown."""
        sign = "≥" if self.at_least else "≤"
        unit = {"ratio": " ×", "difference": f" {self.unit}"}.get(self.compare, f" {self.unit}")
        more = "+ " if self.compare == "difference" else ""
        aim = f"{sign} {more}{_short(self.limit)}{unit}" if self.limit is not None else ""
        base = spread(self.base).text(f" {self.unit}") if self.base else ""
        against = f"{self.against}: {base}" if base else self.against or "–"
        compared = self.compared.text(unit) if self.compare != "value" else ""
        ours = spread(self.ours).text(f" {self.unit}")
        what = f"{self.what} {self.note}".strip()
        met = "" if self.limit is None else "met" if self.met else "**missed**"
        return f"| {self.key} | {what} | {ours} | {against} | {compared} | {aim} | {met} |"

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The inverse of `json`."""
        own = {key: value for key, value in fields.items() if key not in {"compared", "met"}}
        return cls(**own)

    def json(self) -> dict[str, Any]:
        """All fields, and `compared` and `met`."""
        return {**asdict(self), "compared": asdict(self.compared), "met": self.met}


def _short(value: float) -> str:
    if abs(value) >= 100:  # noqa: PLR2004
        return f"{value:.0f}"
    if abs(value) >= 10:  # noqa: PLR2004
        return f"{value:.1f}"
    return f"{value:.2f}"
