"""Runs a module that has secrets in its memory.

    python -m worker.process.hidden DESCRIPTORS MODULE [ARGUMENT]...

Other processes of the same user can read neither its memory nor what it has open, and the programs
that it executes inherit nothing of that, except DESCRIPTORS: numbers, separated by commas.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from pathlib import Path

from worker.linux import hide_from_peers

if __name__ == "__main__":
    hide_from_peers()
    kept = {each for each in sys.argv[1].split(",") if each}
    for entry in Path("/proc/self/fd").iterdir():
        if int(entry.name) > sys.stderr.fileno() and entry.name not in kept:
            with contextlib.suppress(OSError):  # the directory's own descriptor is closed
                os.set_inheritable(int(entry.name), False)
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
