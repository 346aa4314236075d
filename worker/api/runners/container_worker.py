"""Command and environment of a worker in a container, the same for every container runner."""

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


def command(request: TaskRequest, *, mounted: bool) -> list[str]:
    """The image's arguments.

    Args:
        request: the task.
        mounted: whether the endpoints are mounted at ENDPOINTS_PATH; otherwise they are the
            image's examples.
    """
    if mounted:
        return ["run", f"{ENDPOINTS_PATH}/{request.file.name}"]
    return ["run", f"worker.examples.{request.file.stem}:run"]


def common(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the API's environment that every container gets."""
    return passed_on(environ, same_machine=False)


def own(request: TaskRequest) -> dict[str, str]:
    """The variables of one task, except its stream key."""
    return {
        "WORKER_TASK_ID": request.task_id,
        "WORKER_TIMEOUT_S": f"{request.timeout_s:g}",
        "WORKER_INPUTS": json.dumps(request.inputs),
    }
