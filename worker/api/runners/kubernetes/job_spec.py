"""A task as a Job, made from the template.

Labels and annotations hold what was ordered; annotations also what has become of it since
(cancelled, why it waits, its callback), each change guarded by the object's resourceVersion.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners import container_worker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from worker.api.runners.protocol import TaskRequest

CONTAINER: Final = "worker"
ACCOUNT_LABEL: Final = "worker/account"
TASK_LABEL: Final = "worker/task-id"
CALLBACK_LABEL: Final = "worker/callback"
OWED: Final = "owed"
TOLD: Final = "told"
CREATED_AT: Final = "worker/created-at"
CANCELLED_AT: Final = "worker/cancelled-at"
WAITING: Final = "worker/waiting"
LEASED_UNTIL: Final = "worker/callback-leased-until"
STREAM_KEY: Final = "stream_key"
ENDPOINT: Final = "worker/endpoint"
DIGEST: Final = "worker/digest"
CALLBACK_URL: Final = "worker/callback-url"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The Job of docker/k8s/task/job.yaml, or one like it; `image` and `environ` go into it."""

    manifest: Mapping[str, Any]
    image: str | None
    environ: Mapping[str, str]
    mounted: bool

    def job(self, request: TaskRequest) -> dict[str, Any]:
        """The task's Job: the template, with what is this task's alone."""
        job: dict[str, Any] = copy.deepcopy(dict(self.manifest))
        labels = {
            TASK_LABEL: request.task_id,
            ACCOUNT_LABEL: request.account,
            CALLBACK_LABEL: OWED if request.callback_url else TOLD,
        }
        metadata = job["metadata"]
        metadata["name"] = request.task_id
        metadata["labels"] = {**metadata.get("labels", {}), **labels}
        metadata["annotations"] = {
            **metadata.get("annotations", {}),
            CREATED_AT: request.created_at.isoformat(),
            ENDPOINT: request.endpoint_name,
            DIGEST: request.digest,
            CALLBACK_URL: request.callback_url or "",
        }
        pod = job["spec"]["template"]
        pod_labels = pod.setdefault("metadata", {}).setdefault("labels", {})
        pod_labels |= {TASK_LABEL: request.task_id, ACCOUNT_LABEL: request.account}
        pod["spec"]["hostname"] = request.task_id
        container = worker_container(job)
        before_s = _timeout_s(container)
        container["args"] = container_worker.command(request, mounted=self.mounted)
        if self.image is not None:
            container["image"] = self.image
        environ = {each["name"]: each for each in container.get("env", [])}
        for name, value in {**self.environ, **container_worker.own(request)}.items():
            environ[name] = {"name": name, "value": value}
        secret = {"secretKeyRef": {"name": request.task_id, "key": STREAM_KEY}}
        environ["WORKER_STREAM_KEY"] = {"name": "WORKER_STREAM_KEY", "valueFrom": secret}
        container["env"] = list(environ.values())
        deadline_s = job["spec"].get("activeDeadlineSeconds")
        if deadline_s is not None:
            # The template's margin for the queue, the image, and further tries stays.
            job["spec"]["activeDeadlineSeconds"] = deadline_s + math.ceil(
                request.timeout_s - before_s
            )
        return job


def secret(job: Mapping[str, Any], stream_key: bytes) -> dict[str, Any]:
    """The task's stream key, which goes when its Job goes."""
    metadata = job["metadata"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    labels = {"app.kubernetes.io/name": "worker", TASK_LABEL: metadata["name"]}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": metadata["name"], "labels": labels, "ownerReferences": [owner]},
        "immutable": True,
        "stringData": {STREAM_KEY: stream_key.hex()},
    }


def template_of(text: bytes, file: Path) -> dict[str, Any]:
    """Read and check a template.

    Raises:
        ValueError: says what is wrong with it.
    """
    import yaml  # noqa: PLC0415 - comes with the library that only this runner needs

    try:
        job = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML") from error
    if not isinstance(job, dict) or job.get("kind") != "Job":
        raise ValueError(f"{file} holds no Job")
    try:
        worker_container(job)
    except (KeyError, TypeError, StopIteration) as error:
        raise ValueError(f"the Job in {file} has no container `{CONTAINER}`") from error
    return job


def mounts_endpoints(job: Mapping[str, Any]) -> bool:
    """Whether the container has a place for the endpoints."""
    mounts = worker_container(job).get("volumeMounts", [])
    return container_worker.ENDPOINTS_PATH in {each["mountPath"] for each in mounts}


def worker_container(job: Mapping[str, Any]) -> dict[str, Any]:
    """The one container of a Job's pod that runs the task."""
    containers: list[dict[str, Any]] = job["spec"]["template"]["spec"]["containers"]
    return next(each for each in containers if each["name"] == CONTAINER)


def _timeout_s(container: Mapping[str, Any]) -> float:
    for each in container.get("env", []):
        if each["name"] == "WORKER_TIMEOUT_S":
            return float(each["value"])
    return 0.0
