"""The clock for a viewer's limits: it goes slower on a busy machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.stream.limits import clock
from worker.stream.limits.clock import PATIENCE_MAX, BusyMachine, ViewerClock

STALLS = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 total=999999999\n"


def elapsed_s(seconds: int, patience: float) -> float:
    viewer_clock = ViewerClock(100.0, lambda _: patience)
    began = viewer_clock(100.0)
    for second in range(seconds):
        viewer_clock(101.0 + second)
    return viewer_clock(100.0 + seconds) - began


def test_it_follows_the_time_on_an_idle_machine() -> None:
    assert elapsed_s(20, 1.0) == pytest.approx(20)


def test_it_goes_slower_on_a_busy_machine() -> None:
    assert elapsed_s(20, 2.0) == pytest.approx(10)


def test_a_short_busy_time_counts_with_its_own_length() -> None:
    """What was given is not taken back when the machine is idle again."""
    busy = {105.0, 106.0, 107.0, 108.0}
    viewer_clock = ViewerClock(100.0, lambda now: 2.0 if now in busy else 1.0)
    times = [viewer_clock(100.0 + second) for second in range(11)]
    assert times[-1] - times[0] == pytest.approx(8)
    assert times == sorted(times)


@pytest.fixture
def pressure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An idle machine, with a file in which the kernel reports stalls."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    path = tmp_path / "io"
    path.write_text(STALLS.format(5_000_000))
    monkeypatch.setattr(clock, "_PRESSURE", (path, tmp_path / "cpu"))
    return path


@pytest.mark.parametrize(("stalled_us", "patience"), [(0, 1.0), (250_000, 1.25), (10**9, 2.0)])
def test_stalls_count_at_once(pressure: Path, stalled_us: int, patience: float) -> None:
    machine = BusyMachine()
    assert machine.patience(100.0) == 1.0
    pressure.write_text(STALLS.format(5_000_000 + stalled_us))
    assert machine.patience(101.0) == pytest.approx(patience)
    assert machine.patience(102.0) == 1.0


@pytest.mark.parametrize("content", ["", "some\n", "some total=x\n", "\0\xff"])
def test_a_kernel_that_reports_no_stalls(pressure: Path, content: str) -> None:
    pressure.write_text(content)
    machine = BusyMachine()
    assert [machine.patience(now) for now in (100.0, 101.0)] == [1.0, 1.0]


def test_the_load_counts(pressure: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.cpu_count() or 1
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5 * cores, 0.0, 0.0))
    assert BusyMachine().patience(100.0) == 1.5
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0 * cores, 0.0, 0.0))
    assert BusyMachine().patience(100.0) == PATIENCE_MAX


def test_patience_of_this_machine_is_bounded() -> None:
    assert 1 <= BusyMachine().patience(100.0) <= PATIENCE_MAX
