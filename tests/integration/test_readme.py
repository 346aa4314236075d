"""The commands of the READMEs that need the display programs work when they are pasted."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from readmes import ROOT, block, commands
from required import require
from rfb_client import Viewer
from worker_run import MARK, eventually, marked_processes

from worker.stream import tokens

VENV = ".venv/bin/"
PATIENCE_S = 60


class Shell:
    """Runs pasted commands in the source tree, with their temporary files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.tmpdir = folder / "tmp"
        self.tmpdir.mkdir()
        self.mark = uuid.uuid4().hex
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("WORKER_")}
        self.environ |= {"TMPDIR": str(self.tmpdir), MARK: self.mark}
        self.environ |= {"WORKER_LOCAL_ENVIRONMENT": MARK}

    def run(self, script: str, **environ: str) -> str:
        """Run a script; what it printed."""
        script = script.replace(VENV, f"{Path(sys.executable).parent}/")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            check=False,
            capture_output=True,
            text=True,
            env=self.environ | environ,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def shell(display_programs):
    """Run commands; after the test no process and no temporary file of theirs may be left."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))  # short: sockets live below it
    started = Shell(folder)
    try:
        yield started
        eventually(
            lambda: not marked_processes(started.mark),
            timeout_s=PATIENCE_S,
            what="the workers' end",
        )
        left = list(started.tmpdir.iterdir())
    finally:
        shutil.rmtree(folder)
    assert left == []


def test_task(shell, tmp_path):
    """A function and a command both succeed; the command finds its display and its folder."""
    artifacts = tmp_path / "artifacts"
    said = shell.run(block("task"), WORKER_PORT="0", WORKER_ARTIFACTS_DIR=str(artifacts))
    events = [json.loads(line) for line in said.splitlines()]
    ends = [event["status"] for event in events if event["event"] == "worker.finished"]
    assert ends == ["success", "success"]
    assert re.fullmatch(r"on display :\d+\n", (artifacts / "note.txt").read_text())


def test_local(run, shell):
    """The task starts, a viewer connects by the printed URL, and the doctor finds no failure."""
    start, stream_url, doctor = commands("local")
    program, command, *arguments = shlex.split(start)
    assert (program, command) == (f"{VENV}worker", "run")
    port = str(run(*arguments).port)
    url = shell.run(stream_url, WORKER_PORT=port).strip()
    with Viewer.connect(url) as viewer:
        assert (viewer.width, viewer.height) == (1920, 1080)
    assert "ok    Xvfb" in shell.run(doctor, WORKER_PORT="0")


def test_api(shell, tmp_path):
    """A key is made, a task started, its stream URL fetched, and the task cancelled."""
    require("curl", install="apt-get install curl")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    script = block("api").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    said = shell.run(
        f"trap 'kill $(jobs -p); wait' EXIT\n{script}",
        WORKER_API_PORT=port,
        WORKER_STATE_DIR=str(tmp_path / "state"),
    )
    assert re.search(r'"stream_url":"ws://127\.0\.0\.1:\d+/tasks/\S+/websockify\?token=\S+"', said)
    assert '"endpoint_name":"tour"' in said


def test_stream_key(shell):
    """The printed key is the task's, derived from the master secret."""
    secret, task_id = "a master secret of at least 32 bytes", str(uuid.uuid4())
    said = shell.run(block("stream-key"), WORKER_STREAM_SECRET=secret, TASK_ID=task_id)
    assert said.strip() == tokens.derive_key(secret.encode(), task_id).hex()
