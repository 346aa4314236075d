"""The container from inside: its first process, Chromium's sandbox, its fonts, and its end."""

from __future__ import annotations

import pytest
from container_run import END_FILE, HARDENED, docker
from end_to_end import TARGET
from repeated import repeated
from rfb_client import Closed, Viewer
from viewers import ActiveViewer, mouse_mover
from worker_run import eventually

NO_FONT_HAS = "\U000f0000"  # what the task shows to prove that tofu is found
USER = "--user=12345:12345"


def test_first_process(container):
    """PID 1 is tini, which reaps orphans."""
    run = container("tasks.py:sleeps")
    run.event("task.started")
    assert run.execute("cat", "/proc/1/comm") == "tini"


def test_chromium_sandbox(container):
    """With our seccomp profile Chromium reports that all layers of its sandbox are on."""
    run = container("container_tasks.py:sandbox", options=(*HARDENED, USER))
    assert run.wait() == 0, run.stderr
    said = run.result["output"]
    assert said["Layer 1 Sandbox"] == "Namespace"
    assert said["PID namespaces"] == "Yes"
    assert said["Network namespaces"] == "Yes"
    assert said["Seccomp-BPF sandbox"] == "Yes"


def test_refused_sandbox(container):
    """WORKER_CHROMIUM_SANDBOX=on under a profile that refuses it: 64, and how to allow it."""
    run = container(TARGET, options=("--env", "WORKER_CHROMIUM_SANDBOX=on"))
    assert run.wait() == 64
    assert not run.events
    assert "--security-opt seccomp=" in run.stderr
    assert "Traceback" not in run.stderr


def test_every_script_has_a_font(container):
    """Latin, Chinese, Japanese, Korean, Arabic and emoji are all drawn: no tofu."""
    run = container("container_tasks.py:scripts_of_the_world")
    assert run.wait() == 0, run.stderr
    said = run.result["output"]
    assert said["tofu"] == [NO_FONT_HAS]
    assert said["fonts"]["Emoji"] == ["Noto Color Emoji"]
    for name in ("Chinese", "Traditional", "Japanese", "Korean"):
        assert "CJK" in " ".join(said["fonts"][name]), said["fonts"]
    assert (run.artifacts / "scripts.png").stat().st_size


def test_children_that_ignore_term(container):
    """A task with 50 orphans that ignore TERM ends before Docker sends KILL (137); none is left."""
    run = container("container_tasks.py:forks")
    eventually(lambda: "forked" in run.stderr, timeout_s=30)
    assert len(run.processes()) > 50
    docker("stop", run.task_id)
    assert run.docker_wait() == run.wait() == 143
    assert run.events_named("worker.finished")[0]["status"] == "cancelled"
    assert run.processes() == []


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_exit_code(container, script, code):
    """A COMMAND's own exit code is the container's."""
    run = container("--", "sh", "-c", script)
    assert run.wait() == run.docker_wait() == code


@repeated(20)
def test_docker_stop(container, gateway):
    """`docker stop` while a viewer at the gateway moves its mouse: 1000 and 143, not KILL's 137."""
    options = (*HARDENED, USER, "--network", gateway.network)
    run = container(TARGET, "--input", f"file={END_FILE}", options=options, gateway_url=gateway.url)
    run.event("task.started")
    watcher = ActiveViewer(mouse_mover, Viewer.connect(run.stream_url()))
    watcher.wait_ready(20)
    docker("stop", "--time", "5", run.task_id)
    assert watcher.result(5) == Closed(1000, "task cancelled")
    assert watcher.result(1).clean
    assert run.wait() == run.docker_wait() == 143
