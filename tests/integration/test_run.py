"""`worker run`: a task's outcome in the exit code, `result.json`, the events and the output."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worker_run import PROGRAMS, eventually

from worker.task.messages import ERROR_TEXT_MAX_CHARS

TASKS = str(PROGRAMS / "tasks.py")


def test_output(run):
    """The return value of an async function is the output in result.json."""
    worker = run(f"{TASKS}:titled")
    assert worker.wait() == 0
    assert worker.result["output"] == {"title": "Hello"}
    assert worker.result["status"] == "success"


def test_sync_function_with_inputs(run):
    """A function that is not async gets a page of Playwright's sync API, and inputs of --input."""
    worker = run(f"{TASKS}:titled_sync", "--input", "title=A = B")
    assert worker.wait() == 0
    assert worker.result["output"] == {"title": "A = B"}


def test_function_without_page(run):
    """A function without `page` gets its inputs, and no browser is launched."""
    worker = run(f"{TASKS}:plain", "--inputs", '{"n": 1}', "--input", "m=2")
    assert worker.wait() == 0
    assert worker.result["output"] == {"n": 1, "m": "2"}


def test_function_that_only_running_the_file_shows(run):
    """A decorated function is inspected after its file was loaded."""
    worker = run(f"{TASKS}:decorated", "--inputs", '{"n": 1}')
    assert worker.wait() == 0
    assert worker.result["output"] == {"n": 1}


def test_module_target(run, monkeypatch):
    """package.module:function is imported from the working directory."""
    monkeypatch.chdir(PROGRAMS)
    worker = run("tasks:plain")
    assert worker.wait() == 0


def test_failure(run):
    """If the function raises, the exit code is 1; result.json has type, message and traceback."""
    worker = run(f"{TASKS}:fails")
    assert worker.wait() == 1
    error = worker.result["error"]
    assert (error["type"], error["message"]) == ("LookupError", "nothing there")
    assert 'raise LookupError("nothing there")' in error["traceback"]
    assert "worker/task/" not in error["traceback"]


def test_output_that_is_not_json(run):
    """A return value that is not JSON makes the task fail, with a text that says so."""
    worker = run(f"{TASKS}:not_json")
    assert worker.wait() == 1
    assert "not JSON" in worker.result["error"]["message"]


def test_an_unknown_variable_is_reported_and_the_task_runs(run):
    worker = run("--", "true", env={"WORKER_COUNT": "3", "WORKER_NETWORK": "of another program"})
    assert worker.wait() == 0
    assert [each["name"] for each in worker.events if each["event"] == "setting.unknown"] == [
        "WORKER_COUNT"
    ]


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill $$", 143)]
)
def test_command(run, script, code):
    """A COMMAND's own exit code is passed on; it is 128+N if signal N killed it."""
    worker = run("--", "sh", "-c", script)
    assert worker.wait() == code
    assert worker.result["exit_code"] == code
    assert worker.result["status"] == ("success" if code == 0 else "failed")


def test_command_environment(run):
    """A COMMAND gets the display, the browser's path and its inputs, and no secret."""
    script = 'xdpyinfo -display "$DISPLAY" >/dev/null && env | sort'
    worker = run("--input", "a=1", "--", "sh", "-c", script, env={"WORKER_STREAM_SECRET": "s" * 32})
    assert worker.wait() == 0, worker.stderr
    log = (worker.artifacts / "task.log").read_text()
    assert 'WORKER_INPUTS={"a": "1"}' in log
    assert "WORKER_CHROMIUM=/" in log
    assert "SECRET" not in log


def test_own_output(run):
    """The task's output goes to stderr and task.log; only events go to stdout."""
    worker = run(f"{TASKS}:plain")
    assert worker.wait() == 0
    assert (worker.artifacts / "task.log").read_text().split() == ["out", "err"]
    assert worker.stderr.split() == ["out", "err"]


def test_timeout(run):
    """If a task exceeds its timeout, the exit code is 124."""
    worker = run(f"{TASKS}:sleeps", "--timeout-s", "2")
    assert worker.wait() == 124
    assert worker.result["status"] == "failed"


@pytest.mark.parametrize(
    ("number", "code", "task", "said"),
    [
        (signal.SIGTERM, 143, "sleeps_with_page", "cleaned up at about:blank"),
        (signal.SIGINT, 130, "sleeps_async", "cleaned up"),
        (signal.SIGHUP, 143, "sleeps_async", "cleaned up"),
        (signal.SIGQUIT, 143, "sleeps_async", "cleaned up"),
    ],
)
def test_cancel(run, number, code, task, said):
    """A signal that requests the end cancels; an async task's `finally` runs, with its page."""
    worker = run(f"{TASKS}:{task}")
    worker.event("task.started")
    worker.signal(number)
    worker.event("task.finished")
    worker.signal(signal.SIGTERM)  # a second signal changes nothing
    assert worker.wait() == code
    assert worker.result["status"] == "cancelled"
    assert said in worker.stderr.splitlines()


@pytest.mark.parametrize(
    "delay_ms",
    [0, 300, 600]
    + [
        pytest.param(ms, marks=pytest.mark.soak) for ms in (100, 200, 400, 500, 700, 800, 900, 1000)
    ],
)
def test_cancel_during_start(run, delay_ms):
    """After SIGTERM in the first second the exit code is 143, and no process is left."""
    worker = run(f"{TASKS}:sleeps_with_page")

    def catches_term():
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        caught = status.partition("SigCgt:")[2].split()[0]
        return int(caught, 16) & (1 << (signal.SIGTERM - 1))

    eventually(catches_term)  # before, the kernel ends the process, for a shell with 143 too
    time.sleep(delay_ms / 1000)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 143
    assert worker.result["status"] == "cancelled"
    assert [e["status"] for e in worker.events if e["event"] == "worker.finished"] == ["cancelled"]


def test_cancel_a_task_that_ignores_term(run):
    """A task that ignores SIGTERM, and its orphaned grandchildren, are ended."""
    worker = run(f"{TASKS}:ignores_term")
    worker.event("task.started")
    eventually(lambda: len(worker.processes("sleep 600")) >= 6)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 143


def test_hold(run):
    """--hold-s keeps the stream up after the task; a signal then does not change the outcome."""
    worker = run(f"{TASKS}:plain", "--hold-s", "600")
    worker.event("task.held")
    assert worker.stream_url().startswith("ws://127.0.0.1:")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_events(run):
    """Each event is one JSON object with the task's id; the last one is worker.finished."""
    worker = run(f"{TASKS}:plain", "--task-id", "a-task")
    assert worker.wait() == 0
    assert {event["task_id"] for event in worker.events} == {"a-task"}
    names = [event["event"] for event in worker.events]
    assert names.count("worker.finished") == 1
    assert names[-1] == "worker.finished"
    finished = worker.events[-1]
    assert finished["status"] == "success"
    assert finished["exit_code"] == 0
    assert set(finished["stages_ms"]) >= {"xvfb", "x11vnc", "websockify", "start", "task"}


def test_closed_stdout(display_programs, tmp_path):
    """The task runs on if the reader of the events closes its end of the pipe."""
    command = [sys.executable, "-m", "worker.cli", "run", "--port", "0"]
    command += ["--artifacts-dir", str(tmp_path), "--", "true"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        worker.stdout.close()
        assert worker.wait(30) == 0, worker.stderr.read()
    assert json.loads((tmp_path / "result.json").read_text())["exit_code"] == 0


NESTED = 5_000
WRITES_TO_THE_SOCKET = """
import os, sys, time

def run(inputs):
    data = inputs["data"].encode("latin-1") * inputs.get("times", 1)
    while data:
        data = data[os.write(int(sys.argv[1]), data):]
    time.sleep(600)
"""


@pytest.mark.parametrize(
    "inputs",
    [
        {"data": "\x00\xff no JSON\n"},
        {"data": '{"type": "Started"}\n'},
        {"data": '{"type": "Returned", "output": NaN}\n'},
        {"data": '{"type": "Returned", "output": ' + "[" * NESTED + "]" * NESTED + "}\n"},
        {"data": " " * 1024, "times": 40 * 1024},
    ],
    ids=["no JSON", "wrong message", "NaN", "deeply nested", "40 MB line"],
)
def test_task_that_writes_to_the_sessions_socket(run, tmp_path, inputs):
    """Arbitrary bytes in place of messages make the task fail, and the session ends as usual."""
    (tmp_path / "task.py").write_text(WRITES_TO_THE_SOCKET)
    worker = run(str(tmp_path / "task.py"), "--inputs", json.dumps(inputs))
    assert worker.wait() == 1, worker.stderr
    assert worker.result["status"] == "failed"
    assert worker.result["error"]["type"] == "TaskProtocolError"
    assert "worker/session/" not in worker.stderr  # no traceback of the session


def test_error_with_a_huge_text(run, tmp_path):
    """A message longer than the limit is cut short."""
    (tmp_path / "task.py").write_text("def run(): raise LookupError('\\U0001f600' * 5_000_000)")
    worker = run(str(tmp_path / "task.py"))
    assert worker.wait() == 1
    error = worker.result["error"]
    assert error["type"] == "LookupError"
    assert len(error["message"]) == ERROR_TEXT_MAX_CHARS
