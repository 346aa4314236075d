"""Settings: every value that a user can set, from `WORKER_…` variables and options."""

from __future__ import annotations

import difflib
import os
import uuid
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "WORKER_"
SECRET_MIN_BYTES: Final = 32
SECRET_NAMES: Final = ("stream_secret", "stream_key")
API_NAMES: Final = frozenset(
    {
        "runner",
        "api_host",
        "api_port",
        "api_keys_file",
        "state_dir",
        "endpoints_dir",
        "max_running",
        "queue_max",
        "callback_private",
        "retention_s",
        "image",
        "network",
        "memory_bytes",
        "docker_endpoints",
        "seccomp_file",
        "job_template",
        "kubernetes_namespace",
    }
)
"""What only `worker serve` reads: no worker is told."""
LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})
HOUR_S: Final = 3600.0
CENTURY_S: Final = 100 * 365 * 24 * HOUR_S
PORT_MAX: Final = 65535
VIEWERS_LIMIT: Final = 200  # three descriptors each, of a stream server's 1024


class Settings(BaseSettings):
    """What the commands need to know; read once, never changed."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    task_id: str = Field(
        default_factory=lambda: str(uuid.uuid4()),
        pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$",
        description="The task's id: letters, digits, `.`, `_` and `-`. Default: a new UUID.",
    )
    timeout_s: float = Field(
        default=HOUR_S, gt=0, description="A task that runs longer fails with exit code 124."
    )
    host: str = Field(default="127.0.0.1", description="The address that the stream listens on.")
    port: int = Field(
        default=6080, ge=0, le=PORT_MAX, description="The stream's port; 0 picks a free one."
    )
    artifacts_dir: Path | None = Field(
        default=None,
        description="Where `result.json` and `task.log` go. Default: `artifacts/<task id>`.",
    )
    termination_log: Path | None = Field(
        default=None,
        description="A file that gets the outcome too, in at most 4096 bytes, if it is there: "
        "Kubernetes' `terminationMessagePath`.",
    )
    hold_s: float = Field(
        default=0, ge=0, description="Keep display and stream up for so long after the task."
    )
    inputs: dict[str, Any] = Field(
        default_factory=dict, description="The task's inputs, as a JSON object."
    )
    stream_secret: SecretStr | None = Field(
        default=None,
        description="The fleet's master secret, at least 32 bytes; a worker derives its key.",
    )
    stream_key: SecretStr | None = Field(
        default=None,
        description="This task's own stream key: 64 hex digits. Given neither: a random key.",
    )
    debug_page: bool | None = Field(
        default=None,
        description="Serve the noVNC page at `/`. Default: only when the host is loopback.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins whose pages may open the stream and call the API, comma-separated. "
        "Name the API's own as well, for its dashboard. "
        "Default: any for the stream, none for the API.",
    )
    max_viewers: int = Field(
        default=16,
        ge=1,
        le=VIEWERS_LIMIT,
        description="How many may watch at once, besides the one in control; at most 200.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Proxies whose X-Forwarded-For is believed, comma-separated addresses and "
        "networks (`10.0.0.0/8`). Default: none.",
    )
    stream_base_url: str | None = Field(
        default=None,
        pattern=r"^wss?://[^/?#\s]+(?:/[^?#\s]*)?$",
        description="The gateway's public address (`wss://stream.example.com`) for stream URLs.",
    )
    chromium: Path | None = Field(
        default=None, description="The browser's path. Default: the first one found on PATH."
    )
    chromium_sandbox: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Chromium's own sandbox; `auto` turns it off where the kernel refuses it.",
    )
    novnc_dir: Path = Field(
        default=Path("/usr/share/novnc"), description="Where noVNC is, for the pages."
    )
    runner: Literal["local", "docker", "kubernetes"] = Field(
        default="local", description="What `worker serve` starts tasks with."
    )
    api_host: str = Field(default="127.0.0.1", description="The address that the API listens on.")
    api_port: int = Field(
        default=8000, ge=0, le=PORT_MAX, description="The API's port; 0 picks a free one."
    )
    api_keys_file: Path | None = Field(
        default=None, description="The API's keys, hashed. Default: `api-keys.json` in the state."
    )
    state_dir: Path = Field(
        default=Path("~/.local/state/worker"),
        description="What the API keeps: its tasks, their artifacts, its own secret.",
    )
    endpoints_dir: Path | None = Field(
        default=None,
        description="Task files, each an endpoint of its stem's name. Default: the examples.",
    )
    max_running: int = Field(
        default=4, ge=1, description="Tasks at a time (local, docker); the others are queued."
    )
    queue_max: int = Field(
        default=1000, ge=0, description="More queued tasks than this are refused with 429."
    )
    retention_s: float | None = Field(
        default=None,
        ge=0,
        le=CENTURY_S,
        description="An ended task, its artifacts and its Idempotency-Key are kept for so long; "
        "0: for ever. Default: 7 days (local), one day (docker).",
    )
    image: str | None = Field(
        default=None,
        description="The workers' image. Default: `worker`, or what the Job's template says.",
    )
    network: str = Field(
        default="workers", description="The Docker network of the workers and their gateway."
    )
    memory_bytes: int = Field(
        default=3 << 30, ge=256 << 20, description="A container's memory, in the docker runner."
    )
    docker_endpoints: str | None = Field(
        default=None,
        description="The endpoints as the Docker engine finds them: a folder of its machine, or a "
        "volume. Default: `WORKER_ENDPOINTS_DIR`.",
    )
    seccomp_file: Path | None = Field(
        default=None, description="The containers' seccomp profile. Default: `docker/seccomp.json`."
    )
    job_template: Path | None = Field(
        default=None,
        description="The Job that the kubernetes runner makes tasks from. Default: "
        "`docker/k8s/task/job.yaml`.",
    )
    kubernetes_namespace: str | None = Field(
        default=None, description="Where its Jobs are. Default: the API's own namespace."
    )
    callback_private: bool = Field(
        default=False,
        description="Let callbacks go to loopback, private and link-local addresses.",
    )

    @field_validator("allowed_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                ip_network(text, strict=False)
            except ValueError:
                raise ValueError(
                    f"{text!r} is neither an address nor a network such as 10.0.0.0/8"
                ) from None
        return value

    @field_validator("stream_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < SECRET_MIN_BYTES:
            raise ValueError(
                f"must be at least {SECRET_MIN_BYTES} bytes; make one with `openssl rand -hex 32`"
            )
        return value

    @field_validator("stream_key")
    @classmethod
    def _is_hex_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            key = bytes.fromhex(value.get_secret_value())
        except ValueError:
            key = b""
        if len(key) != SECRET_MIN_BYTES:
            raise ValueError(f"must be {2 * SECRET_MIN_BYTES} hex digits")
        return value

    @property
    def serves_debug_page(self) -> bool:
        """Whether `GET /` is the noVNC page."""
        if self.debug_page is None:
            return self.host in LOOPBACK_HOSTS
        return self.debug_page


def load(options: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Args:
        options: what the command line gave, by field name; it outranks the environment.
        environ: whose names are checked; the values come from `os.environ`.

    Raises:
        SettingError: a value is bad, or a `WORKER_…` variable is unknown.
    """
    _refuse_unknown(os.environ if environ is None else environ)
    try:
        return Settings(**dict(options))  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        raise SettingError(_explain(error, options)) from None
    except SettingsError:
        # Only `inputs` is JSON; the foreign message would quote the value.
        raise SettingError(f"{PREFIX}INPUTS: must be a JSON object") from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingError(f"unknown variable {name}{hint}")


def _explain(error: ValidationError, options: Mapping[str, object]) -> str:
    said = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        field = str(problem["loc"][0])
        option = field.removeprefix("api_").replace("_", "-")  # `serve --port` is its own
        given = f"--{option}" if field in options else PREFIX + field.upper()
        said.append(f"{given}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(said)


def table() -> str:
    """The settings as the README shows them: a Markdown table."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        plain = isinstance(default, str | int | float) and not isinstance(default, bool)
        shown = f"`{default}`" if plain or isinstance(default, Path) else ""
        rows.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows)
