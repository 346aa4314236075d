"""The command line and the environment of a worker, for every runner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import worker
from worker.settings.run import variables_for_workers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.api.runners.protocol import TaskRequest

ENDPOINTS_PATH: Final = "/endpoints"
STREAM_PORT: Final = 6080
SOURCE_TREE: Final = Path(worker.__file__).parent.parent
"""Where the files of `docker/` are, unless the settings name others."""


def passed_on(environ: Mapping[str, str], *, same_machine: bool) -> dict[str, str]:
    """The variables that every worker gets: not the API's own, and not those set for each task.

    Args:
        environ: the API's environment.
        same_machine: whether the workers are processes of the API's machine; containers do not
            get paths and addresses of that machine.
    """
    names = variables_for_workers(same_machine=same_machine)
    return {name: value for name, value in environ.items() if name in names}


def container_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the API's environment that the worker in every container gets."""
    return passed_on(environ, same_machine=False)


def task_environment(request: TaskRequest) -> dict[str, str]:
    """The variables of one task, except its stream key."""
    return {
        "WORKER_TASK_ID": request.task_id,
        "WORKER_TIMEOUT_S": f"{request.timeout_s:g}",
        "WORKER_INPUTS": json.dumps(request.inputs),
    }


def container_command(request: TaskRequest, *, mounted: bool) -> list[str]:
    """The arguments of the image.

    Args:
        request: the task.
        mounted: whether the endpoints are mounted at ENDPOINTS_PATH; otherwise they are the
            image's examples.
    """
    if mounted:
        return ["run", f"{ENDPOINTS_PATH}/{request.file.name}"]
    return ["run", f"worker.examples.{request.file.stem}:run"]
