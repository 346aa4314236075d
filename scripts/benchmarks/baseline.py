"""Runs the bare script, the baseline of lines a, c, g and j."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.systems import HERE, chromium

if TYPE_CHECKING:
    import subprocess

    from benchmarks.remote_task import TaskListener


def start_bare_script(listener: TaskListener) -> subprocess.Popen[bytes]:
    """Start the bare script, which starts an Xvfb of its own."""
    return processes.start(
        processes.python(str(HERE / "bare_script.py"), listener.path),
        {"BENCH_CHROMIUM": chromium(), "PYTHONPATH": str(HERE.parent)},
    )


def bare_script_times_s(listener: TaskListener) -> tuple[float, float]:
    """Run the bare script once; return the times from exec to its task, and from return to exit."""
    exec_s = time.monotonic()
    process = start_bare_script(listener)
    try:
        task = listener.next_task()
        returned_s = task.finish()
        process.wait(processes.STOP_TIMEOUT_S)
        return task.began_s - exec_s, time.monotonic() - returned_s
    finally:
        processes.stop(process)
