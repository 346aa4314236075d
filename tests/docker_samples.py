"""A task request, its container, and the engine's answers about it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from worker.api.runners.docker.container import Container
from worker.api.runners.docker.container_spec import ContainerSpec
from worker.api.runners.protocol import TaskRequest

TASK_ID = "11111111-2222-4333-8444-555555555555"
CREATED_AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
REQUEST = TaskRequest(
    task_id=TASK_ID,
    account="acme",
    endpoint_name="shop",
    file=Path("/srv/endpoints/shop.py"),
    inputs={"n": 1, "city": "Zürich"},
    timeout_s=60,
    callback_url="https://acme.example/hook",
    digest="d" * 64,
    created_at=CREATED_AT,
)
SPEC = ContainerSpec(
    image="worker",
    network="workers",
    endpoints="/srv/endpoints",
    seccomp='{"defaultAction": "SCMP_ACT_ERRNO"}',
    memory_bytes=1 << 30,
    environ={"WORKER_ALLOWED_ORIGINS": "https://a.example"},
)


def container(state: str = "running", name: str = TASK_ID) -> Container:
    request = SPEC.create_body(REQUEST, b"k" * 32)
    return Container.from_list(
        {
            "Id": "c1",
            "Names": [f"/{name}"],
            "State": state,
            "Labels": request["Labels"],
            "NetworkSettings": {"Networks": {"workers": {"IPAddress": "172.18.0.5"}}},
        }
    )


def details(**state: Any) -> dict[str, Any]:
    known = {
        "StartedAt": "2026-01-02T03:04:06.123456789Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
        "ExitCode": 0,
        "Error": "",
        "OOMKilled": False,
    }
    return {
        "State": known | state,
        "Config": {"Env": SPEC.create_body(REQUEST, b"k" * 32)["Env"]},
        "Created": "2026-01-02T03:04:05.7Z",
    }
