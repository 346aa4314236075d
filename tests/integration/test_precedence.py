"""Which processes get CPU time first, by their niceness and their sessions'."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

NICENESS = """\
import json, os
from pathlib import Path
session = Path("/proc/self/autogroup")
of_session = int(session.read_text().split()[-1]) if session.exists() else None
print(json.dumps([os.getpriority(os.PRIO_PROCESS, 0), of_session]))
"""
API = """\
import subprocess, sys
from worker.api import precedence, programs
niceness = sys.argv[1]
if sys.argv[2] == "raised":
    precedence.raise_own()
exec(niceness)
waiting = [sys.executable, "-c", "import time; time.sleep(0.1)\\n" + niceness]
print(programs.run(waiting)[1].decode(), end="", flush=True)
worker = subprocess.Popen(
    [sys.executable, "-c", "input()\\n" + niceness], stdin=subprocess.PIPE, start_new_session=True
)
precedence.lower_worker(worker.pid)
worker.communicate(b"\\n")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take precedence")
@pytest.mark.parametrize(("raised", "expected"), [(True, [-10, 0, 5]), (False, [0, 0, 5])])
def test_niceness(raised, expected):
    """The API comes before the programs that it starts, and these before workers."""
    done = subprocess.run(
        [sys.executable, "-c", API, NICENESS, "raised" if raised else ""],
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [own for own, _ in found] == expected
    assert [session for _, session in found if session is not None] in ([], expected)
