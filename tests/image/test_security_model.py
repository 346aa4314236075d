"""The security model's columns of containers: what a task in a container can access."""

from __future__ import annotations

import json

import pytest
from container_run import HARDENED, docker
from security_tables import differences
from worker_run import eventually

PRIVATE = "the-private-text-of-another-task"
PROGRAMS = (
    *("worker.cli run", "worker.task.child", "supervisor.supervisord"),
    *("Xvfb", "x11vnc", "worker.stream.server"),
)
USERS = {"container": "12345:12345", "container, root": "0:0"}


@pytest.fixture
def host(tmp_path):
    """Files of an API on the host."""
    for name in ("stream-secret", "api-keys.json", "tasks.sqlite3"):
        (tmp_path / name).write_text(PRIVATE)
    return tmp_path


def processes(run):
    """The victim's processes as the host numbers them, each with a part of its command line."""
    lines = [
        line.split(maxsplit=1)
        for line in docker("top", run.task_id, "-eo", "pid,args").splitlines()[1:]
    ]
    return [
        next([int(pid), name] for pid, command in lines if name in command) for name in PROGRAMS
    ]


def targets(host, victim):
    """What the attacker tries to access, by kind; see `probes.py`."""
    left = json.loads((victim.artifacts / "targets.json").read_text())
    session = victim.event("worker.started")["folder"]
    worker, task, supervisord, xvfb, x11vnc, server = processes(victim)
    secret = [worker, supervisord, server]
    state = [str(host / name) for name in ("api-keys.json", "tasks.sqlite3")]
    artifacts = [str(victim.artifacts), str(victim.artifacts / "private.txt")]
    return {
        "master_secret": [str(host / "stream-secret")],
        "state": [*state, str(host)],
        "api": [worker],
        "artifacts": artifacts,
        "folders": [f"{left['tmp']}/private.txt", f"/proc/{task[0]}/root{left['tmp']}"],
        "task": [task, worker],
        "events": [str(victim.artifacts.parent / "stderr"), f"/proc/{worker[0]}/fd/1"],
        "session": [session, f"{session}/Xauthority"],
        "supervisord": [supervisord],
        "supervisord_socket": [[supervisord, f"{session}/supervisor.sock"]],
        "keys": secret,
        "secret": secret,
        "ordinary": [task, xvfb, x11vnc],
        "processes": [*secret, task, xvfb, x11vnc],
        "x11vnc": [f"{session}/x11vnc.sock"],
        "display": [[left["display"], f"{session}/Xauthority"]],
        "unix_sockets": [left["unix_socket"]],
        "ports": [left["abstract"], left["port"]],
        "segments": [[left["segment"], PRIVATE]],
        "shm_files": [left["shm_file"]],
        "modes": [*state, *artifacts[1:]],
        "elsewhere": ["/", "/etc", "/usr/bin", "/var/tmp", "/work", "/opt/worker", "/root"],
        "browser": [artifacts[1], state[0], "/etc/passwd"],
    }


@pytest.mark.parametrize("column", USERS)
def test_task_in_a_container(container, host, column):
    """With the options for untrusted pages it can do what the table states."""
    options = (*HARDENED, f"--user={USERS[column]}")
    victim = container("isolation/victim.py", "--input", f"private={PRIVATE}", options=options)
    eventually((victim.artifacts / "targets.json").exists, timeout_s=30, what="its files")
    other = json.dumps(targets(host, victim))
    attacker = container("isolation/attacker.py", "--input", f"other={other}", options=options)
    assert attacker.wait() == 0, attacker.stderr
    assert differences(column, attacker.result["output"]["possible"]) == {}
    assert attacker.result["output"]["facts"]["keys"] == []
