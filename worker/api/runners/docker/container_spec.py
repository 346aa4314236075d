"""The request that creates a task's container: image, environment, labels and hardening."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners import worker_environment
from worker.api.runners.docker.container import (
    ACCOUNT_LABEL,
    ARTIFACTS_PATH,
    CALLBACK_URL_LABEL,
    CREATED_AT_LABEL,
    DIGEST_LABEL,
    ENDPOINT_LABEL,
    NETWORK_LABEL,
    TASK_LABEL,
)
from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from worker.api.runners.protocol import TaskRequest

_SHM_BYTES: Final = 1 << 30
_PIDS_MAX: Final = 4096
_LOG_OPTIONS: Final = {"max-size": "20m", "max-file": "2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What is the same for every container of a runner.

    `endpoints` is a folder of the engine's machine, or a volume's name, or None for the image's
    examples; `seccomp` is the profile's JSON; `environ` is passed to every worker.
    """

    image: str
    network: str
    endpoints: str | None
    seccomp: str
    memory_bytes: int
    environ: Mapping[str, str]

    def create_body(self, request: TaskRequest, stream_key: bytes) -> dict[str, Any]:
        """The body of `POST /containers/create` (Engine API 1.41)."""
        environ = {
            **self.environ,
            **worker_environment.task_environment(request),
            # Readable for the engine's administrators; it is valid for this task's stream only.
            "WORKER_STREAM_KEY": stream_key.hex(),
        }
        labels = {
            TASK_LABEL: request.task_id,
            ACCOUNT_LABEL: request.account,
            NETWORK_LABEL: self.network,
            ENDPOINT_LABEL: request.endpoint_name,
            CREATED_AT_LABEL: request.created_at.isoformat(),
            DIGEST_LABEL: request.digest,
            CALLBACK_URL_LABEL: request.callback_url or "",
        }
        return {
            "Image": self.image,
            "Cmd": worker_environment.container_command(
                request, mounted=self.endpoints is not None
            ),
            "Env": [f"{name}={value}" for name, value in environ.items()],
            "Labels": labels,
            "HostConfig": self._host_config(),
            "NetworkingConfig": {"EndpointsConfig": {self.network: {}}},
        }

    def _host_config(self) -> dict[str, Any]:
        # An anonymous volume: it is kept when the process ends and removed with the container.
        mounts: list[dict[str, Any]] = [{"Type": "volume", "Target": ARTIFACTS_PATH}]
        if self.endpoints is not None:
            mounts.append(
                {
                    "Type": "bind" if self.endpoints.startswith("/") else "volume",
                    "Source": self.endpoints,
                    "Target": worker_environment.ENDPOINTS_PATH,
                    "ReadOnly": True,
                }
            )
        return {
            "NetworkMode": self.network,
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": ""},  # noqa: S108 - inside the container
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={self.seccomp}"],
            "ShmSize": _SHM_BYTES,
            "Memory": self.memory_bytes,
            "PidsLimit": _PIDS_MAX,
            "LogConfig": {"Type": "json-file", "Config": _LOG_OPTIONS},
            "Mounts": mounts,
        }


def seccomp_profile(file: Path | None) -> str:
    """The JSON of a seccomp profile; of `docker/seccomp.json` if no file is given.

    Raises:
        SettingError: the file cannot be read.
    """
    file = file or worker_environment.SOURCE_TREE / "docker/seccomp.json"
    try:
        return json.dumps(json.loads(file.read_bytes()))
    except (OSError, ValueError) as error:
        raise SettingError(
            f"WORKER_SECCOMP_FILE: cannot read a seccomp profile from {file}; "
            "set it to docker/seccomp.json of the source tree"
        ) from error
