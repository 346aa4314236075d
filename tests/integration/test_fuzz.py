"""A short fuzz run over the stream's entry; `make soak` includes the long one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz"


@pytest.mark.measured
def test_fuzz(display_programs):
    """No crash, hang or growth; every case of the corpus runs before anything is mutated."""
    done = subprocess.run(
        [SCRIPT, "--seconds", "20"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fuzz: nothing found" in done.stdout
