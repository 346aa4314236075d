"""What is imported before a session's first process starts; each module there delays the start."""

from __future__ import annotations

import subprocess
import sys

import pytest

ALLOWED = {
    "worker",
    "worker.close_codes",
    "worker.display",
    "worker.display.screen",
    "worker.display.xvfb",
    "worker.errors",
    "worker.linux",
    "worker.outcome",
    "worker.process",
    "worker.surroundings.interpreter",
    "worker.process.program",
    "worker.process.session_folder",
    "worker.process.spawn",
    "worker.process.supervisord_config",
    "worker.surroundings.temporary",
    "worker.programs",
    "worker.session",
    "worker.session.prelaunch",
    "worker.surroundings",
    "worker.task",
    "worker.task.spec",
    "worker.task.target",
}
ABSENT = {"org"}  # Jython's package, which the standard library's `copy` looks for


def imported(statement: str) -> set[str]:
    """The modules that a fresh interpreter imports for a statement, its own start included."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", statement],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines[1:]}  # the first is the heading


@pytest.fixture(scope="module")
def prelaunch() -> set[str]:
    """What `worker.session.prelaunch` imports."""
    return imported("import worker.session.prelaunch") - imported("pass")


def test_modules_of_prelaunch(prelaunch: set[str]) -> None:
    """The list of this package's modules is exact."""
    assert {name for name in prelaunch if name.partition(".")[0] == "worker"} == ALLOWED


def test_prelaunch_needs_the_standard_library_only(prelaunch: set[str]) -> None:
    """No third-party package is imported."""
    packages = {name.partition(".")[0] for name in prelaunch}
    assert packages - sys.stdlib_module_names - {"worker"} - ABSENT == set()
