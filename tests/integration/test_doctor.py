"""`worker doctor` on a real machine."""

from __future__ import annotations

import os
import subprocess
import sys

from worker_run import PROGRAMS

from worker.programs import DEBIAN_PACKAGES, DISPLAY_PROGRAMS


def doctor(**env):
    """Run it; return its exit code and its lines."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", "doctor"],
        check=False,
        capture_output=True,
        text=True,
        env=environ | {"WORKER_PORT": "0"} | env,
        cwd=PROGRAMS,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.splitlines()


def test_on_a_machine_that_runs_tasks(display_programs):
    """The exit code is 0; each line is ok, or a warning with a remedy."""
    code, lines = doctor()
    assert code == 0, lines
    assert all(
        line.startswith("ok ") or (line.startswith("warn ") and ": " in line) for line in lines
    )
    text = "\n".join(lines)
    for name in ("Xvfb", "x11vnc", "matchbox", "Chromium", "noVNC", "websockify", "/dev/shm"):
        assert name in text
    assert "open files" in text
    assert "of memory" in text
    assert "display :" in text


def test_on_a_machine_without_programs(tmp_path):
    """The exit code is 1, and each program's line names its Debian package."""
    code, lines = doctor(PATH=str(tmp_path), HOME=str(tmp_path))
    assert code == 1
    for name in (*DISPLAY_PROGRAMS, "chromium"):
        package = DEBIAN_PACKAGES[name]
        assert any(
            line.startswith("FAIL") and f"apt-get install {package}" in line for line in lines
        )


def test_an_invalid_setting_is_reported_as_for_every_command():
    code, lines = doctor(WORKER_PORT="many")
    assert (code, lines) == (64, [])
