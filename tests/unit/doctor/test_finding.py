"""A finding is one line of the report."""

from __future__ import annotations

from worker.doctor.finding import failure, ok, warning


def test_a_line_begins_with_the_level_and_ends_with_the_remedy():
    assert str(ok("a")) == "ok    a"
    assert str(warning("a", "do b")) == "warn  a: do b"
    assert str(failure("a", "do b")) == "FAIL  a: do b"
