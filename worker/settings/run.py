"""Settings of `worker run`, `worker stream-url` and `worker doctor`."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from worker.net import LOOPBACK_HOSTS
from worker.settings.shared import (
    HOUR_S,
    PORT_MAX,
    SECRET_MIN_BYTES,
    Option,
    Scope,
    SharedSettings,
    split_paths,
    variable,
)

_VIEWERS_LIMIT: Final = 200  # three descriptors each, of a stream server's 1024


class RunSettings(SharedSettings):
    """What a worker reads."""

    task_id: Annotated[str, Scope.TASK, Option("--task-id")] = Field(
        default_factory=lambda: str(uuid.uuid4()),
        pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$",
        description="Id of the task: letters, digits, `.`, `_` and `-`. Default: a new UUID.",
    )
    timeout_s: Annotated[float, Scope.TASK, Option("--timeout-s")] = Field(
        default=HOUR_S, gt=0, description="Time limit; then the task fails with exit code 124."
    )
    host: Annotated[str, Scope.MACHINE, Option("--host")] = Field(
        default="127.0.0.1", description="Address that the stream listens on."
    )
    port: Annotated[int, Scope.TASK, Option("--port")] = Field(
        default=6080, ge=0, le=PORT_MAX, description="Port of the stream; 0 selects a free port."
    )
    listener_fd: Annotated[int | None, Scope.TASK] = Field(
        default=None,
        ge=0,
        description="Inherited descriptor of a listening TCP socket, used instead of `WORKER_HOST` "
        "and `WORKER_PORT`.",
    )
    display_fds: Annotated[tuple[int, ...], NoDecode, Scope.TASK] = Field(
        default=(),
        description="Inherited descriptors of the listening sockets of an X display, separated by "
        "`:`. Default: Xvfb chooses a free display.",
    )
    artifacts_dir: Annotated[Path | None, Scope.TASK, Option("--artifacts-dir")] = Field(
        default=None,
        description="Folder of `result.json` and `task.log`. Default: `artifacts/<task id>`.",
    )
    log_max_bytes: int = Field(
        default=64 << 20,
        ge=1,
        description="Maximum size of `task.log`; further output is "
        "neither recorded nor copied to stderr.",
    )
    termination_log: Annotated[Path | None, Scope.TASK] = Field(
        default=None,
        description="An existing file to which the outcome is also written, in at most 4096 bytes: "
        "Kubernetes' `terminationMessagePath`.",
    )
    hold_s: Annotated[float, Option("--hold-s")] = Field(
        default=0, ge=0, description="Display and stream stay up this long after the task."
    )
    inputs: Annotated[dict[str, Any], Scope.TASK, Option("--inputs")] = Field(
        default_factory=dict, description="Inputs of the task, as a JSON object. Default: none."
    )
    stream_key: Annotated[SecretStr | None, Scope.TASK] = Field(
        default=None,
        description="Stream key of this task, 64 hex digits. Default: derived from "
        "`WORKER_STREAM_SECRET`; without that, random.",
    )
    debug_page: Annotated[bool | None, Scope.TASK] = Field(
        default=None,
        description="Serve the noVNC page at `/`. Default: only if `WORKER_HOST` is a loopback "
        "address.",
    )
    max_viewers: int = Field(
        default=16,
        ge=1,
        le=_VIEWERS_LIMIT,
        description="Maximum number of concurrent viewers, at most 200. The viewer in control is "
        "not counted.",
    )
    chromium: Annotated[Path | None, Scope.MACHINE] = Field(
        default=None,
        description="Path of the browser. Default: the first one found on PATH, else Playwright's "
        "own Chromium.",
    )
    chromium_sandbox: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Chromium's own sandbox; `auto` disables it if the kernel refuses it, `on` "
        "then refuses to start.",
    )

    allow_file_urls: bool = Field(
        default=False,
        description="In the image, whose policy for Chromium blocks them: allow `file://` URLs.",
    )
    confine: Annotated[bool, Scope.TASK] = Field(
        default=False,
        description="Restrict the task by Landlock: it reads the system's, the interpreter's and "
        "its own folders, and writes its own only ([what exactly](#confinement)).",
    )
    confine_read: Annotated[tuple[Path, ...], NoDecode, Scope.TASK] = Field(
        default=(),
        description="Files and folders that a confined task may read as well, separated by `:`.",
    )
    confine_write: Annotated[tuple[Path, ...], NoDecode, Scope.TASK] = Field(
        default=(), description="Folders that a confined task may write as well, separated by `:`."
    )
    confine_hide: Annotated[tuple[Path, ...], NoDecode, Scope.TASK] = Field(
        default=(),
        description="Files and folders that a confined task cannot access, even inside of those "
        "that it may read, separated by `:`.",
    )

    _split_paths = field_validator(
        "display_fds", "confine_read", "confine_write", "confine_hide", mode="before"
    )(split_paths)

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


def secret_variables() -> list[str]:
    """The variables whose values must not reach the task or Chromium."""
    fields = RunSettings.model_fields
    return [variable(name) for name in fields if SecretStr in get_args(fields[name].annotation)]


def variables_for_workers(*, same_machine: bool) -> frozenset[str]:
    """The variables of the API's environment that its workers get too.

    Args:
        same_machine: whether the workers are processes of the API's machine, not containers.
    """
    kept = {Scope.API, Scope.TASK} if same_machine else set(Scope)
    return frozenset(
        variable(name)
        for name, field in RunSettings.model_fields.items()
        if not kept.intersection(mark for mark in field.metadata if isinstance(mark, Scope))
    )
