"""Invalid input: one line on stderr that says what to do, and exit code 64; nothing is started."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from worker_run import PROGRAMS

from worker.programs import DEBIAN_PACKAGES, DISPLAY_PROGRAMS

TASKS = str(PROGRAMS / "tasks.py")
NEEDED = (*DISPLAY_PROGRAMS, "chromium")
STARTED = "a process was started"


def worker(*arguments, env=None, path=None, cwd=None):
    """Run the command; its stdout reports every start of a process (an audit event)."""
    guard = "import sys, worker.cli, subprocess\n" + (
        "def audit(event, args):\n"
        f"    if event in ('subprocess.Popen', 'os.fork', 'os.posix_spawn'): print({STARTED!r})\n"
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


def assert_rejected(done, *words):
    """Exit code 64, no start of a process, and one line on stderr that contains the words."""
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
        (["run", f"{TASKS}:wants_more"], ["required parameter 'browser'"]),
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
def test_an_invalid_argument_is_named(arguments, words):
    assert_rejected(worker(*arguments), *words)


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
def test_an_invalid_variable_is_named_without_a_secrets_value(env, words):
    done = worker("run", f"{TASKS}:plain", env=env)
    assert_rejected(done, *words)
    assert "short" not in done.stderr


def test_a_syntax_error_is_reported_with_its_line(tmp_path):
    (tmp_path / "broken.py").write_text("def run(page):\n    return (\n")
    assert_rejected(worker("run", str(tmp_path / "broken.py")), "syntax error", "line 2")


def test_a_port_in_use_is_reported_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = worker("run", f"{TASKS}:plain", "--port", port)
    assert_rejected(done, port, "--port 0")


@pytest.mark.parametrize("missing", NEEDED)
def test_a_missing_program_is_reported_with_the_command_that_installs_it(tmp_path, missing):
    for name in {*NEEDED} - {missing}:
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/true")
    done = worker("run", f"{TASKS}:plain", path=str(tmp_path), env={"HOME": str(tmp_path)})
    assert_rejected(done, missing, f"apt-get install {DEBIAN_PACKAGES[missing]}")


def test_an_artifacts_folder_that_is_a_file_is_reported(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    done = worker("run", f"{TASKS}:plain", "--artifacts-dir", str(file))
    assert_rejected(done, "artifacts folder", str(file))


def test_no_command_shows_the_commands():
    done = worker()
    assert done.returncode == 64
    assert "stream-url" in done.stderr


def test_a_rejected_run_leaves_no_artifacts_folder(tmp_path):
    worker(
        "run",
        f"{TASKS}:plain",
        "--port",
        "70000",
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path.cwd())},
    )
    assert list(tmp_path.iterdir()) == []
