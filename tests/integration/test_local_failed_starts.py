"""The local runner starts a task again whose session failed before the task's code began."""

from __future__ import annotations

import os
import shutil

import pytest

XVFB = """\
#!/bin/sh
# Fails as often as there are folders to remove.
for each in {tokens}/*; do
    rmdir "$each" 2>/dev/null && exit 1
done
exec {xvfb} "$@"
"""


@pytest.fixture
def start(serve, tmp_path):
    """Start an API whose first displays fail, and a task; returns both."""

    def started(failures):
        tokens = tmp_path / "tokens"
        tokens.mkdir()
        tokens.chmod(0o777)
        for number in range(failures):
            (tokens / str(number)).mkdir()
        program = tmp_path / "bin/Xvfb"
        program.parent.mkdir(mode=0o755)
        program.write_text(XVFB.format(tokens=tokens, xvfb=shutil.which("Xvfb")))
        program.chmod(0o755)
        api = serve({"PATH": f"{program.parent}:{os.environ['PATH']}"})
        api.sign_in()
        return api, api.start_task("echo", input_parameters={"n": 1})

    return started


@pytest.mark.parametrize("failures", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_it_is_started_again(start, failures):
    api, task = start(failures)
    ended = api.wait_for_status(task, "success", "failed")
    assert (ended["status"], ended["exit_code"]) == ("success", 0), ended
    assert [
        event["failed_starts"] for event in api.events if event["event"] == "task.requeued"
    ] == [*range(1, failures + 1)]


def test_it_fails_after_three_starts(start):
    api, task = start(9)
    ended = api.wait_for_status(task, "success", "failed")
    assert (ended["status"], ended["exit_code"]) == ("failed", 70)
    assert ended["error"]["type"] == "StartFailed"
