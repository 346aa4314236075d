"""Errors state what happened, then what to do, in one line."""

from __future__ import annotations

import pytest

from worker.errors import (
    ExtraMissing,
    PortInUse,
    ProgramMissing,
    SessionLost,
    StartFailed,
    TargetError,
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            PortInUse("::1", 6080, "Address already in use"),
            (
                "cannot listen on ::1 port 6080: Address already in use; "
                "give another --port, or --port 0 to use a free one"
            ),
        ),
        (ProgramMissing("Xvfb"), "Xvfb is not installed: run `apt-get install xvfb`"),
        (
            ProgramMissing("noVNC", "no core/rfb.js in /n"),
            "noVNC is not installed (no core/rfb.js in /n): run `apt-get install novnc`",
        ),
        (
            ExtraMissing("api", "fastapi"),
            (
                "the Python module fastapi of the extra `api` is not installed: "
                "run `make setup`, or use the image worker-api"
            ),
        ),
        (StartFailed("xvfb", "it ended with 1"), "xvfb did not start: it ended with 1"),
        (
            StartFailed("xvfb", "it ended with 1", "no fonts"),
            "xvfb did not start: it ended with 1; last output: no fonts",
        ),
    ],
)
def test_text(error, text):
    assert str(error) == text


def test_exit_codes():
    assert TargetError.exit_code == PortInUse.exit_code == ExtraMissing.exit_code == 64
    assert StartFailed.exit_code == SessionLost.exit_code == 70
