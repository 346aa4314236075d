"""Runs a module that has secrets in its memory (`-m worker.process.hidden MODULE ARGUMENT…`).

Other processes of the same user can read neither its memory nor what it has open.
"""

from __future__ import annotations

import runpy
import sys

from worker.linux import hide_from_peers

if __name__ == "__main__":
    hide_from_peers()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
