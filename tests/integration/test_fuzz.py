"""A short fuzz run over the stream's entry; `make fuzz` is the long one."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz"


def test_twenty_seconds():
    """No crash, hang or growth; the corpus is run whole before anything is mutated."""
    done = subprocess.run(
        [SCRIPT, "--seconds", "20"], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fuzz: nothing found" in done.stdout
