"""Bad input: one clear line on stderr that says what to do, exit 64, before any process."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from worker_run import PROGRAMS

TASKS = str(PROGRAMS / "tasks.py")
SPAWNED = "no process is started"


def worker(*arguments, env=None, path=None, cwd=None):
    """Run it with `strace`-like certainty: any fork or exec fails the run."""
    guard = "import sys, worker.cli, subprocess\n" + (
        "def audit(event, args):\n"
        f"    if event in ('subprocess.Popen', 'os.fork', 'os.posix_spawn'): print({SPAWNED!r})\n"
        "sys.addaudithook(audit)\n"
        "sys.exit(worker.cli.main())"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("WORKER_")}
    if path is not None:
        environ["PATH"] = path
    return subprocess.run(
        [sys.executable, "-c", guard, *arguments],
        env=environ | {"WORKER_PORT": "0"} | (env or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def assert_refused(done, *words):
    """One line, the right words, 64, and nothing else happened."""
    assert done.returncode == 64, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["either a TARGET or a command"]),
        (["run", "nowhere.py"], ["no such file", "nowhere.py"]),
        (["run", "no.such.module:run"], ["no such file or module"]),
        (["run", f"{TASKS}:nothing"], ["no function nothing", "titled"]),
        (["run", f"{TASKS}:wants_more"], ["wants a parameter 'browser'"]),
        (["run", f"{TASKS}:plain", "--inputs", "{"], ["--inputs is not JSON"]),
        (["run", f"{TASKS}:plain", "--inputs", "[1]"], ["JSON object"]),
        (["run", f"{TASKS}:plain", "--input", "novalue"], ["NAME=VALUE"]),
        (["run", f"{TASKS}:plain", "--timeout-s", "soon"], ["--timeout-s"]),
        (["run", f"{TASKS}:plain", "--timeout-s", "-1"], ["--timeout-s"]),
        (["run", f"{TASKS}:plain", "--port", "70000"], ["--port"]),
        (["run", f"{TASKS}:plain", "--host", "no.such.host.invalid"], ["--host"]),
        (["run", f"{TASKS}:plain", "--task-id", "a/b"], ["--task-id"]),
        (["run", f"{TASKS}:plain", "--nonsense"], ["--nonsense"]),
        (["run", f"{TASKS}:plain", "--artifacts-dir", "/proc/nowhere"], ["artifacts folder"]),
        (["run", "--", "no-such-program-anywhere"], ["command not found"]),
        (["run", f"{TASKS}:plain", "--", "true"], ["either a TARGET or a command"]),
        (["stream-url", "--port", "1"], ["no worker in debug mode answers"]),
        (["stream-url", "--ttl-s", "0"], ["--ttl-s"]),
        (["fly"], ["invalid choice"]),
    ],
)
def test_arguments(arguments, words):
    """A bad argument is named."""
    assert_refused(worker(*arguments), *words)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"WORKER_TIMEOUT": "5"}, ["WORKER_TIMEOUT", "did you mean WORKER_TIMEOUT_S?"]),
        ({"WORKER_STREAM_SECRET": "short"}, ["WORKER_STREAM_SECRET", "32 bytes", "openssl"]),
        ({"WORKER_STREAM_KEY": "xyz"}, ["WORKER_STREAM_KEY", "64 hex digits"]),
        ({"WORKER_INPUTS": "{"}, ["WORKER_INPUTS", "JSON object"]),
        ({"WORKER_PORT": "http"}, ["WORKER_PORT"]),
        ({"WORKER_CHROMIUM": "/no/such/browser"}, ["WORKER_CHROMIUM", "/no/such/browser"]),
        ({"WORKER_NOVNC_DIR": "/no/novnc"}, ["noVNC", "apt-get install novnc"]),
    ],
)
def test_variables(env, words):
    """A bad variable is named, and its value is not said when it is a secret."""
    done = worker("run", f"{TASKS}:plain", env=env)
    assert_refused(done, *words)
    assert "short" not in done.stderr


def test_syntax_error(tmp_path):
    """A syntax error is said with its line."""
    (tmp_path / "broken.py").write_text("def run(page):\n    return (\n")
    assert_refused(worker("run", str(tmp_path / "broken.py")), "syntax error", "line 2")


def test_port_in_use():
    """A port in use is said, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = worker("run", f"{TASKS}:plain", "--port", port)
    assert_refused(done, port, "--port 0")


@pytest.mark.parametrize("missing", ["Xvfb", "x11vnc", "matchbox-window-manager", "chromium"])
def test_missing_program(tmp_path, missing):
    """A missing program is said with the command that installs it."""
    for name in {"Xvfb", "x11vnc", "matchbox-window-manager", "chromium"} - {missing}:
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/true")
    done = worker("run", f"{TASKS}:plain", path=str(tmp_path), env={"HOME": str(tmp_path)})
    assert_refused(done, missing, f"apt-get install {missing.lower()}")


def test_artifacts_folder_that_is_a_file(tmp_path):
    """An artifacts folder that cannot be written is said."""
    file = tmp_path / "file"
    file.write_text("")
    done = worker("run", f"{TASKS}:plain", "--artifacts-dir", str(file))
    assert_refused(done, "artifacts folder", str(file))


def test_no_command_shows_the_commands():
    """`worker` alone shows what it can do."""
    done = worker()
    assert done.returncode == 64
    assert "stream-url" in done.stderr


def test_nothing_is_left_in_the_working_directory(tmp_path):
    """A refused run leaves no artifacts folder behind."""
    worker(
        "run",
        f"{TASKS}:plain",
        "--port",
        "70000",
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path.cwd())},
    )
    assert list(tmp_path.iterdir()) == []
