"""Reports refusals as events: at most one per status and second, however many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from http import HTTPStatus

INTERVAL_S: Final = 1.0


@dataclass(slots=True)
class _Unreported:
    """The refusals with one status since the last event; `address` is the latest one's."""

    reported_at: float
    address: str = ""
    count: int = 0


class RefusalLog:
    """Refusals by status.

    The first one is reported at once; those of the following second are reported together, with
    their number and the address of the latest.
    """

    def __init__(self, report: Callable[[str, HTTPStatus, int], None]) -> None:
        """Report by a function of address, status and number."""
        self._report = report
        self._by_status: dict[HTTPStatus, _Unreported] = {}

    def add(self, address: str, status: HTTPStatus, now: float) -> None:
        """Note a refusal; `now` is in seconds of a monotonic clock."""
        entry = self._by_status.get(status)
        if entry is None:
            entry = self._by_status[status] = _Unreported(now - INTERVAL_S)
        entry.address = address
        entry.count += 1
        self._report_due(status, entry, now)

    def flush(self, now: float, *, everything: bool = False) -> None:
        """Report what has waited for a second; `everything`: also what has not."""
        for status, entry in self._by_status.items():
            self._report_due(status, entry, now + INTERVAL_S if everything else now)

    def _report_due(self, status: HTTPStatus, entry: _Unreported, now: float) -> None:
        if entry.count and now - entry.reported_at >= INTERVAL_S:
            self._report(entry.address, status, entry.count)
            entry.reported_at, entry.count = now, 0
