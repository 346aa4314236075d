"""What a worker that runs in a container is told, whoever starts the container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import worker
from worker.api.runners.worker_environment import passed_on

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.api.runners.protocol import TaskRequest

ENDPOINTS_PATH: Final = "/endpoints"
STREAM_PORT: Final = 6080
SOURCE_TREE: Final = Path(worker.__file__).parent.parent
"""Where the files of `docker/` are, unless the settings name others."""
_IMAGES_OWN: Final = frozenset({"WORKER_HOST", "WORKER_CHROMIUM", "WORKER_NOVNC_DIR"})


def command(request: TaskRequest, *, mounted: bool) -> list[str]:
    """The image's arguments.

    Args:
        request: the task.
        mounted: whether the endpoints are in ENDPOINTS_PATH; else they are the image's examples.
    """
    if mounted:
        return ["run", f"{ENDPOINTS_PATH}/{request.file.name}"]
    return ["run", f"worker.examples.{request.file.stem}:run"]


def common(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the API's environment holds in every container too."""
    return {name: value for name, value in passed_on(environ).items() if name not in _IMAGES_OWN}


def own(request: TaskRequest) -> dict[str, str]:
    """What is this task's alone, but for its stream key."""
    return {
        "WORKER_TASK_ID": request.task_id,
        "WORKER_TIMEOUT_S": f"{request.timeout_s:g}",
        "WORKER_INPUTS": json.dumps(request.inputs),
    }
