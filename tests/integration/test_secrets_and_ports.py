"""What other processes on the machine can see: no secret, and one port."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
from rfb_client import Viewer
from worker_run import PROGRAMS

TASKS = str(PROGRAMS / "tasks.py")
SECRET = "a master secret of the fleet that is long enough"


def content(path):
    """A file's bytes; empty if the file or its process no longer exists."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_one_port(run):
    """The whole process tree listens on one TCP port, the stream's."""
    worker = run(f"{TASKS}:sleeps_with_page")
    worker.event("task.started")
    tree = psutil.Process(worker.process.pid).children(recursive=True)
    tree.append(psutil.Process(worker.process.pid))
    listening = set()
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):  # Chromium's helpers come and go
            listening |= {
                (connection.laddr.ip, connection.laddr.port)
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    assert len(tree) > 10
    assert listening == {("127.0.0.1", worker.port)}


def test_no_secret_is_visible(run):
    """Command lines, environments, logs, files and stdout hold no secret, key or token."""
    task_id = str(uuid.uuid4())
    worker = run(
        f"{TASKS}:sleeps_with_page", "--task-id", task_id, env={"WORKER_STREAM_SECRET": SECRET}
    )
    worker.event("task.started")
    key = hmac.digest(SECRET.encode(), f"stream:{task_id}".encode(), hashlib.sha256)
    url = worker.stream_url()
    with Viewer.connect(url) as viewer:
        viewer.request_update(incremental=False)
        viewer.read_update(10)
        found = [
            f"{kind} of {pid}"
            for pid in worker.processes()
            for kind in ("cmdline", "environ")
            for secret in (SECRET, key.hex(), url.partition("token=")[2])
            if secret.encode() in content(Path(f"/proc/{pid}/{kind}"))
        ]
        files = [path for path in worker.session_folder.rglob("*") if path.is_file()]
        files += [path for path in worker.artifacts.rglob("*") if path.is_file()]
        for path in files:
            held = content(path)
            for secret in (
                SECRET.encode(),
                key,
                key.hex().encode(),
                url.partition("token=")[2].encode(),
            ):
                assert secret not in held, path
    assert not found
    worker.end()
    for text in (str(worker.events), worker.stderr):
        assert SECRET not in text
        assert key.hex() not in text
        assert "token=" not in text


def test_stream_url_command(run):
    """`worker stream-url` with the same secret prints a URL that works, once."""
    task_id = str(uuid.uuid4())
    env = {"WORKER_STREAM_SECRET": SECRET}
    worker = run(f"{TASKS}:sleeps", "--task-id", task_id, env=env)
    command = [sys.executable, "-m", "worker.cli", "stream-url"]
    given = ["--task-id", task_id, "--port", str(worker.port)]
    for environ in (env, {}):  # signed by the command; requested from the local worker
        url = subprocess.run(
            [*command, *given], env=environ, capture_output=True, text=True, check=True
        ).stdout.strip()
        with Viewer.connect(url) as viewer:
            assert (viewer.width, viewer.height) == (1920, 1080)
