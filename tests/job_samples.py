"""A task request, its Job and pods, as the kubernetes runner reads them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from worker.api.runners import worker_environment
from worker.api.runners.kubernetes.job_spec import JobTemplate
from worker.api.runners.protocol import TaskRequest

MANIFEST = yaml.safe_load(
    (worker_environment.SOURCE_TREE / "docker/k8s/task/job.yaml").read_bytes()
)
RUNNING = {"running": {"startedAt": "2026-01-02T03:04:06Z"}}
REQUEST = TaskRequest(
    task_id="11111111-2222-4333-8444-555555555555",
    account="acme",
    endpoint_name="tour",
    file=Path("/endpoints/tour.py"),
    inputs={"n": 1},
    timeout_s=60.0,
    callback_url="https://acme.example/hook",
    digest="d" * 64,
    created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)
TEMPLATE = JobTemplate(manifest=MANIFEST, image=None, environ={}, mounted=True)


def job(condition: dict[str, str] | None = None, **annotations: str) -> dict[str, Any]:
    """A Job; `worker/` is prefixed to annotations, `_` stands for `-`."""
    made = TEMPLATE.job_for(REQUEST)
    for name, text in annotations.items():
        made["metadata"]["annotations"][f"worker/{name.replace('_', '-')}"] = text
    made["status"] = {"conditions": [condition] if condition else []}
    return made


def condition(kind: str, reason: str = "", message: str = "") -> dict[str, str]:
    """What a Job's controller sets at the end: `Complete` or `Failed`."""
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-02T03:05:07Z",
    }


def pod(state: dict[str, Any] | None, created: str = "1", **status: Any) -> dict[str, Any]:
    """A pod with its container's state and further fields of its status."""
    containers = [] if state is None else [{"name": "worker", "state": state}]
    return {
        "metadata": {"name": "p", "creationTimestamp": f"2026-01-02T03:04:0{created}Z"},
        "status": {"containerStatuses": containers, **status},
    }


def terminated(code: int, reason: str = "Error", result: Any = None) -> dict[str, Any]:
    """A container's state after its end, with the result that its worker wrote."""
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "startedAt": "2026-01-02T03:04:06Z",
            "finishedAt": "2026-01-02T03:05:06Z",
            **({} if result is None else {"message": json.dumps(result)}),
        }
    }


def result(status: str, code: int, **more: Any) -> dict[str, Any]:
    """A worker's result."""
    return {"status": status, "exit_code": code, "output": None, "error": None, **more}
