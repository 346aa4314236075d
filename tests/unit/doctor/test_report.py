"""The report of all checks."""

from __future__ import annotations

from worker.doctor import report
from worker.doctor.finding import Level, failure, ok, warning


def test_only_a_failure_means_that_tasks_cannot_run():
    assert report.can_run([ok("a"), warning("b", "c")])
    assert not report.can_run([ok("a"), failure("b", "c")])


def test_an_exception_in_a_check_is_a_finding():
    def memory():
        yield ok("first")
        raise OSError("no such file")

    first, last = report._findings(memory())
    assert first == ok("first")
    assert last.level == Level.FAILURE
    assert last.what == "the check of memory failed"
    assert "OSError: no such file" in last.remedy
