"""A task's output is complete and in order, however much it prints and however it ends.

Playwright's driver shares the task's stderr. Node.js makes what it writes to non-blocking, for
every process that shares it; a write that the pipe has no room for would fail then.
"""

from __future__ import annotations

import sys

import pytest
from worker_run import PROGRAMS

TASKS = PROGRAMS / "printing_tasks.py"
LINES = 3_000
LINE_BYTES = 1_000


def log_of(worker):
    return (worker.artifacts / "task.log").read_text().splitlines()


def assert_complete(log, lines=LINES):
    assert [line[:9] for line in log[:lines]] == [f"{number:09d}" for number in range(lines)]
    assert {len(line) for line in log[:lines]} == {LINE_BYTES - 1}


@pytest.mark.parametrize(
    ("function", "code"),
    [("prints", 0), ("prints_async", 0), ("raises", 1), ("exits", 3), ("is_killed", 137)],
)
def test_function(run, function, code):
    worker = run(f"{TASKS}:{function}", "--input", f"lines={LINES}")
    assert worker.wait() == code
    log = log_of(worker)
    assert_complete(log)
    if function == "raises":
        assert "ValueError: the last line" in log


def test_command(run):
    worker = run("--", sys.executable, "-u", str(TASKS), str(LINES))
    assert worker.wait() == 0
    assert_complete(log_of(worker))


def test_one_large_text(run):
    """50 MB in one `print`."""
    worker = run(f"{TASKS}:prints_at_once", "--input", "lines=50000")
    assert worker.wait() == 0
    assert (worker.artifacts / "task.log").read_bytes() == (b"x" * 999 + b"\n") * 50_000
