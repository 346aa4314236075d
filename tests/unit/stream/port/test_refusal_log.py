"""The events of refused requests."""

from __future__ import annotations

from http import HTTPStatus

from worker.stream.port.refusal_log import RefusalLog

BUSY, LATE = HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT


def test_a_flood_is_one_event_per_second() -> None:
    """The first is reported at once, those of the next second together, none is lost."""
    reported: list[tuple[str, HTTPStatus, int]] = []
    log = RefusalLog(lambda *report: reported.append(report))
    log.add("192.0.2.1", BUSY, 10.0)
    assert reported == [("192.0.2.1", BUSY, 1)]
    for number in range(100):
        log.add(f"192.0.2.{number}", BUSY, 10.0 + number / 1000)
    log.add("192.0.2.1", LATE, 10.5)
    assert reported[1:] == [("192.0.2.1", LATE, 1)]
    log.flush(10.9)
    assert len(reported) == 2
    log.flush(11.0)
    log.flush(20.0)
    assert reported[2:] == [("192.0.2.99", BUSY, 100)]


def test_the_last_ones_are_reported_at_the_end() -> None:
    reported: list[tuple[str, HTTPStatus, int]] = []
    log = RefusalLog(lambda *report: reported.append(report))
    for _ in range(3):
        log.add("192.0.2.1", BUSY, 10.0)
    log.flush(10.0, everything=True)
    assert [count for _, _, count in reported] == [1, 2]
