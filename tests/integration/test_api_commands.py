"""`worker api-key` and `worker serve` on the command line: output and one-line errors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.fixture
def worker(tmp_path):
    def run(*arguments, env=None, python=()):
        environ = {k: v for k, v in os.environ.items() if not k.startswith("WORKER_")}
        environ |= {"WORKER_STATE_DIR": str(tmp_path / "state")} | (env or {})
        return subprocess.run(
            [sys.executable, *(python or ("-m", "worker.cli")), *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_create_list_and_revoke_a_key(worker):
    key = worker("api-key", "alice", "--control").stdout.strip()
    assert key.startswith("wk_")
    listed = worker("api-key", "--list").stdout
    assert listed.startswith(f"alice\t{key[:11]}…\tcontrol\t")
    assert key not in listed
    assert worker("api-key", "alice", "--revoke", key).returncode == 0
    assert worker("api-key", "--list").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "env", "text"),
    [
        (["api-key"], {}, "ACCOUNT is missing"),
        (["api-key", "a b"], {}, "cannot name an account"),
        (["api-key", "alice", "--revoke"], {}, "alice has no such key"),
        (["serve", "--port", "x"], {}, "--port"),
        (["serve", "--host", "203.0.113.1"], {}, "cannot listen on 203.0.113.1"),
        (["serve"], {"WORKER_ENDPOINTS_DIR": "/none"}, "WORKER_ENDPOINTS_DIR"),
        (["serve"], {"WORKER_RUNNER": "slurm"}, "WORKER_RUNNER"),
        (["serve"], {"WORKER_RUNNER": "kubernetes"}, "WORKER_STREAM_SECRET"),
        (["serve"], {"WORKER_STATE_DIR": "/proc/none"}, "WORKER_STATE_DIR"),
        (["serve"], {"WORKER_QUEUE_MAXX": "1"}, "did you mean WORKER_QUEUE_MAX?"),
    ],
)
def test_error_is_one_line(worker, arguments, env, text):
    ended = worker(*arguments, env=env)
    assert ended.returncode == 64
    assert text in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_missing_extra(worker):
    """Without FastAPI the error names the extra to install."""
    without = (
        "import sys; sys.modules['fastapi'] = None; from worker.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    ended = worker("serve", python=("-c", without))
    assert ended.returncode == 64
    assert "run `make setup`" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_task_imports_nothing_of_the_api(worker):
    code = (
        "import sys, worker.session.session, worker.session.preflight; "
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('fastapi', 'uvicorn', 'httpcore', 'starlette', 'docker', 'kubernetes') or name in "
        "('worker.settings.serve', 'worker.settings.docker', 'worker.settings.kubernetes')])"
    )
    assert worker(python=("-c", code)).stdout == "[]\n"
