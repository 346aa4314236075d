"""Many workers side by side on one host."""

from __future__ import annotations

import pytest
from worker_run import PROGRAMS

TASKS = str(PROGRAMS / "tasks.py")


@pytest.mark.measured
def test_ten_at_once(run):
    """Ten workers that start at once all succeed, each on a display and a port of its own."""
    workers = [run(f"{TASKS}:titled") for _ in range(10)]
    assert [worker.wait(timeout_s=100) for worker in workers] == [0] * 10
    assert len({worker.display for worker in workers}) == 10
    assert len({worker.port for worker in workers}) == 10
