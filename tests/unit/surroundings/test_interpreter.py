"""The command line of our Python processes."""

from __future__ import annotations

import sys

from worker.surroundings import interpreter


def test_modules_come_from_the_installation_only():
    command = interpreter.command("a.module", "argument", options=("-u",))
    assert command[0] == sys.executable
    assert command[1:] == ["-I", "-X", "utf8", "-u", "-m", "a.module", "argument"]
