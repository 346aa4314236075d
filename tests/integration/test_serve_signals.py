"""A signal ends `worker serve` at any point of its start."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from repeated import repeated
from worker_run import COMMAND

MOMENTS_S = [number / 8 for number in range(10)]
_LIMIT_S = 20


@pytest.fixture
def environ(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("WORKER_API_PORT", "0")


def ends(moment_s, number):
    """Send the signal after this time; the exit code."""
    process = subprocess.Popen(
        [COMMAND, "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(moment_s)  # not to synchronise: the time is the parameter
    process.send_signal(number)
    try:
        _, stderr = process.communicate(timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert b"Traceback" not in stderr
    return process.returncode


@repeated(10)
def test_signal_during_the_start(environ, repetition):
    """It is not lost; before Python has begun, its default action ends the process."""
    for moment_s in MOMENTS_S if repetition else MOMENTS_S[::2]:
        assert ends(moment_s, signal.SIGTERM) in (0, -signal.SIGTERM), moment_s
