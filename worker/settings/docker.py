"""Settings of `worker serve` with the docker runner."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from worker.settings.serve import ServeSettings


class DockerSettings(ServeSettings):
    """What the docker runner reads in addition to the API's settings."""

    image: str = Field(default="worker", description="Image of the workers.")
    network: str = Field(
        default="workers", description="Docker network of the workers and their gateway."
    )
    memory_bytes: int = Field(
        default=3 << 30, ge=256 << 20, description="Memory limit of each container."
    )
    docker_endpoints: str | None = Field(
        default=None,
        description="The endpoints as the Docker engine finds them: a folder of the engine's "
        "machine, or a volume. Default: `WORKER_ENDPOINTS_DIR`.",
    )
    seccomp_file: Path | None = Field(
        default=None,
        description="Seccomp profile of the containers. Default: `docker/seccomp.json`.",
    )
