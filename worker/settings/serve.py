"""Settings of `worker serve` and `worker api-key`, whatever the runner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from worker.settings.shared import HOUR_S, PORT_MAX, Option, SharedSettings

_CENTURY_S: Final = 100 * 365 * 24 * HOUR_S


class ServeSettings(SharedSettings):
    """What the API reads."""

    runner: Literal["local", "docker", "kubernetes"] = Field(
        default="local", description="How tasks are started: as processes, containers or Jobs."
    )
    api_host: Annotated[str, Option("--host")] = Field(
        default="127.0.0.1", description="Address that the API listens on."
    )
    api_port: Annotated[int, Option("--port")] = Field(
        default=8000, ge=0, le=PORT_MAX, description="Port of the API; 0 selects a free port."
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File of the API keys' hashes. Default: `api-keys.json` in `WORKER_STATE_DIR`.",
    )
    state_dir: Path = Field(
        default=Path("~/.local/state/worker"),
        validate_default=True,
        description="Folder of the API's state: the local runner's tasks and their artifacts, API "
        "keys, the generated stream secret.",
    )
    endpoints_dir: Path | None = Field(
        default=None,
        description="Folder of task files; each is an endpoint, named after the file without "
        "`.py`. Default: the package's examples.",
    )
    timeout_s: float = Field(
        default=HOUR_S, gt=0, description="Time limit of a task whose request sets none."
    )
    hold_s: float = Field(
        default=0,
        ge=0,
        description="Display and stream of each task stay up this long after it.",
    )
    max_running: int = Field(
        default=4,
        ge=1,
        description="Maximum number of running tasks (local, docker); further tasks are queued.",
    )
    queue_max: int = Field(
        default=1000,
        ge=0,
        description="Maximum number of queued tasks (local, docker); further tasks are refused "
        "with 429.",
    )
    account_max_running: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of running tasks of one account (local, docker). Default: "
        "`WORKER_MAX_RUNNING`.",
    )
    account_max_queued: int = Field(
        default=500,
        ge=0,
        description="Maximum number of queued tasks of one account; its further tasks are refused "
        "with 429. Accounts take turns when queued tasks are started (local, docker).",
    )
    retention_s: float | None = Field(
        default=None,
        ge=0,
        le=_CENTURY_S,
        description="How long an ended task, its artifacts and its Idempotency-Key are kept "
        "(local, docker); 0: never removed. Default: 7 days (local), one day (docker).",
    )
    callback_private: bool = Field(
        default=False,
        description="Callback addresses may be loopback, private or link-local.",
    )

    @field_validator("state_dir", "api_keys_file", "endpoints_dir")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        try:
            return value and value.expanduser()
        except RuntimeError:
            raise ValueError(
                f"the home directory for {value} is unknown; set HOME, or an absolute path"
            ) from None
