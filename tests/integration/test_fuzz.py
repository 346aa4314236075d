"""A short fuzz run over the stream's entry; `make soak` includes the long one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SECONDS = 40  # half of it each with a fake display and a real one
SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz"


@pytest.mark.measured
@pytest.mark.timeout(240)
def test_fuzz(display_programs):
    """No crash, hang or growth; every case of the corpus runs before anything is mutated."""
    done = subprocess.run(
        [SCRIPT, "--seconds", str(SECONDS)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("fuzz: nothing found") == 2


def test_corpus_with_a_real_x11vnc(display_programs):
    """X11vnc survives every case of the corpus, and serves a well-behaved viewer beside it."""
    done = subprocess.run(
        [SCRIPT, "--display", "real", "--seconds", "0"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
