"""A task's Job, made from a template, and the Secret with its stream key.

Labels and annotations store the request. Annotations also store what happens later (cancellation,
why the pod waits, the callback's lease); each change has a resourceVersion precondition.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners import worker_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from worker.api.runners.protocol import TaskRequest

CONTAINER: Final = "worker"
ACCOUNT_LABEL: Final = "worker/account"
TASK_LABEL: Final = "worker/task-id"
CALLBACK_LABEL: Final = "worker/callback"
PENDING: Final = "pending"
NOTIFIED: Final = "notified"
CREATED_AT: Final = "worker/created-at"
CANCELLED_AT: Final = "worker/cancelled-at"
WAITING: Final = "worker/waiting"
LEASED_UNTIL: Final = "worker/callback-leased-until"
STREAM_KEY: Final = "stream_key"
ENDPOINT: Final = "worker/endpoint"
DIGEST: Final = "worker/digest"
CALLBACK_URL: Final = "worker/callback-url"
# Version 0.1 wrote `owed` and `told`; its Jobs may still exist.
PENDING_VALUES: Final = (PENDING, "owed")
PENDING_SELECTOR: Final = f"{CALLBACK_LABEL} in ({','.join(PENDING_VALUES)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTemplate:
    """The manifest of docker/k8s/task/job.yaml, or a similar one.

    `image` replaces the manifest's if it is set; `environ` is added to the container's; `mounted`:
    whether the endpoints are in a volume.
    """

    manifest: Mapping[str, Any]
    image: str | None
    environ: Mapping[str, str]
    mounted: bool

    def job_for(self, request: TaskRequest) -> dict[str, Any]:
        """The body that creates the task's Job."""
        job: dict[str, Any] = copy.deepcopy(dict(self.manifest))
        self._set_metadata(job, request)
        self._set_container(job, request)
        return job

    @staticmethod
    def _set_metadata(job: dict[str, Any], request: TaskRequest) -> None:
        own = {TASK_LABEL: request.task_id, ACCOUNT_LABEL: request.account}
        callback = {CALLBACK_LABEL: PENDING if request.callback_url else NOTIFIED}
        metadata = job["metadata"]
        metadata["name"] = request.task_id
        metadata["labels"] = {**metadata.get("labels", {}), **own, **callback}
        metadata["annotations"] = {
            **metadata.get("annotations", {}),
            CREATED_AT: request.created_at.isoformat(),
            ENDPOINT: request.endpoint_name,
            DIGEST: request.digest,
            CALLBACK_URL: request.callback_url or "",
        }
        pod = job["spec"]["template"]
        pod.setdefault("metadata", {}).setdefault("labels", {}).update(own)
        pod["spec"]["hostname"] = request.task_id

    def _set_container(self, job: dict[str, Any], request: TaskRequest) -> None:
        container = worker_container(job)
        template_timeout_s = _timeout_s(container)
        command = worker_environment.container_command(request, mounted=self.mounted)
        container["args"] = [literal(each) for each in command]
        if self.image is not None:
            container["image"] = self.image
        environ = {each["name"]: each for each in container.get("env", [])}
        for name, value in {**self.environ, **worker_environment.task_environment(request)}.items():
            environ[name] = {"name": name, "value": literal(value)}
        key = {"secretKeyRef": {"name": request.task_id, "key": STREAM_KEY}}
        environ["WORKER_STREAM_KEY"] = {"name": "WORKER_STREAM_KEY", "valueFrom": key}
        container["env"] = list(environ.values())
        deadline_s = job["spec"].get("activeDeadlineSeconds")
        if deadline_s is not None:
            # Keeps the template's margin for the queue, the image's download and further attempts.
            job["spec"]["activeDeadlineSeconds"] = deadline_s + math.ceil(
                request.timeout_s - template_timeout_s
            )


def literal(text: str) -> str:
    """A value that the kubelet passes as `text`; unchanged, it would replace `$(NAME)` and `$$`.

    Otherwise an input that names WORKER_STREAM_KEY would contain the key, for everyone to read.
    """
    return text.replace("$", "$$")


def text_of(value: str) -> str:
    """The text that the kubelet passes for a `literal` value."""
    return value.replace("$$", "$")


def stream_key_secret(job: Mapping[str, Any], stream_key: bytes) -> dict[str, Any]:
    """The body that creates the Secret with a task's stream key; it is deleted with the Job."""
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


def parse_manifest(text: bytes, file: Path) -> dict[str, Any]:
    """A template's manifest.

    Raises:
        ValueError: it is not a Job with a container for the task; the text has the reason.
    """
    import yaml  # noqa: PLC0415 - installed with the library that only this runner needs

    try:
        job = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML") from error
    if not isinstance(job, dict) or job.get("kind") != "Job":
        raise ValueError(f"{file} is not a Job")
    try:
        worker_container(job)
    except (KeyError, TypeError, StopIteration) as error:
        raise ValueError(f"the Job in {file} has no container `{CONTAINER}`") from error
    return job


def mounts_endpoints(job: Mapping[str, Any]) -> bool:
    """Whether a volume is mounted where the container looks for the endpoints."""
    mounts = worker_container(job).get("volumeMounts", [])
    return worker_environment.ENDPOINTS_PATH in {each["mountPath"] for each in mounts}


def worker_container(job: Mapping[str, Any]) -> dict[str, Any]:
    """The container of a Job's pod that runs the task."""
    containers: list[dict[str, Any]] = job["spec"]["template"]["spec"]["containers"]
    return next(each for each in containers if each["name"] == CONTAINER)


def _timeout_s(container: Mapping[str, Any]) -> float:
    for each in container.get("env", []):
        if each["name"] == "WORKER_TIMEOUT_S":
            return float(each["value"])
    return 0.0
