"""Settings of `worker serve` with the kubernetes runner."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from worker.settings.serve import ServeSettings


class KubernetesSettings(ServeSettings):
    """What the kubernetes runner reads in addition to the API's settings."""

    image: str | None = Field(
        default=None,
        description="Image of the workers. Default: the image in the Job template.",
    )
    job_template: Path | None = Field(
        default=None,
        description="Template of the tasks' Jobs. Default: `docker/k8s/task/job.yaml`.",
    )
    kubernetes_namespace: str | None = Field(
        default=None, description="Namespace of the Jobs. Default: the API's own namespace."
    )
