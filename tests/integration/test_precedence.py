"""Which processes get CPU time first, by their niceness and their sessions'."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from worker import linux

NICENESS = """\
import json, os
from pathlib import Path
session = Path("/proc/self/autogroup")
of_session = int(session.read_text().split()[-1]) if session.exists() else None
print(json.dumps([os.getpriority(os.PRIO_PROCESS, 0), of_session]))
"""
API = """\
import subprocess, sys
from worker.api import precedence, programs
niceness = sys.argv[1]
exec(niceness)
waiting = [sys.executable, "-c", "import time; time.sleep(0.1)\\n" + niceness]
print(programs.run(waiting)[1].decode(), end="", flush=True)
worker = subprocess.Popen(
    [sys.executable, "-c", "input()\\n" + niceness], stdin=subprocess.PIPE, start_new_session=True
)
precedence.lower_worker(worker.pid)
worker.communicate(b"\\n")
"""


def test_niceness():
    """The API comes before the programs and the workers that it starts."""
    done = subprocess.run(
        [sys.executable, "-c", API, NICENESS],
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    own, *others = [nice - found[0][0] for nice, _ in found]
    assert (own, others) == (0, [5, 5])
    assert [session for _, session in found if session is not None][1:] in ([], [5, 5])


def test_cgroup(serve):
    """The API has one of its own while it runs; one that was killed has left none later."""
    root = linux.cpu_cgroup()
    if root is None or not root.is_root or not os.access(root.path, os.W_OK):
        pytest.skip("needs root, and a writable file system of cgroups")

    def groups():
        return {each.name for each in root.path.glob("worker-api-*")}

    api = serve()
    killed = f"worker-api-{api.process.pid}"
    assert killed in groups()
    api.kill()
    api.start()
    own = f"worker-api-{api.process.pid}"
    assert own in groups()
    assert killed not in groups()
    assert (root.path / own / "cgroup.procs").read_text().split() == [str(api.process.pid)]
    assert api.stop() == 0
    assert own not in groups()


def test_no_cgroup(serve):
    """Where tasks have none of their own: they would be in the API's, and have its share."""
    root = linux.cpu_cgroup()
    api = serve({"WORKER_LOCAL_ISOLATION": "landlock"})
    api.event("api.started")
    own = root.path / f"worker-api-{api.process.pid}" if root else None
    assert own is None or not own.exists()
