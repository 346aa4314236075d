"""Settings that both `worker run` and `worker serve` read, and how a field is marked."""

from __future__ import annotations

from enum import Enum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX: Final = "WORKER_"
SECRET_MIN_BYTES: Final = 32
PORT_MAX: Final = 65535
HOUR_S: Final = 3600.0


class Option(str):
    """Marks a field that is also a command-line option, for example `--port`."""

    __slots__ = ()


class Scope(Enum):
    """Marks a field of RunSettings that a worker does not get from the API's environment.

    An unmarked field is passed on to every worker that the API starts.
    """

    API = "the API's own value"
    TASK = "the runner sets it for each task"
    MACHINE = "passed on to processes of the same machine, not to containers"


def variable(field_name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field_name.upper()


def option(kind: type[SharedSettings], field_name: str) -> str | None:
    """The command-line option of a field; None if it has none."""
    field = kind.model_fields.get(field_name)
    marks = field.metadata if field is not None else ()
    return next((mark for mark in marks if isinstance(mark, Option)), None)


def split_list(value: object) -> object:
    """Split a comma-separated text into a tuple; other values are returned as they are."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


class SharedSettings(BaseSettings):
    """What `worker run` and `worker serve` read from the same variable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_ignore_empty=True,
        defer_build=True,  # a class that is only inherited from is never built: 5 ms
    )

    stream_secret: Annotated[SecretStr | None, Scope.API] = Field(
        default=None,
        description="Master secret of all tasks' stream keys, at least 32 bytes. Default: a "
        "random stream key (`worker run`), or a secret in `WORKER_STATE_DIR` (`worker serve`).",
    )
    stream_base_url: Annotated[str | None, Scope.API] = Field(
        default=None,
        pattern=r"^wss?://[^/?#\s]+(?:/[^?#\s]*)?$",
        description="Public address of the gateway (`wss://stream.example.com`), with which stream "
        "URLs begin. Default: the worker's own address.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins whose pages may open the stream and call the API, comma-separated. "
        "For the dashboard, include the API's own origin. "
        "Default: any origin for the stream, none for the API.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Proxies whose X-Forwarded-For header is trusted: comma-separated addresses "
        "and networks (`10.0.0.0/8`). Default: none.",
    )
    novnc_dir: Annotated[Path, Scope.MACHINE] = Field(
        default=Path("/usr/share/novnc"),
        description="Folder of noVNC, for the debug page and the dashboard.",
    )

    _split_lists = field_validator("allowed_origins", "trusted_proxies", mode="before")(split_list)

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
    def _is_long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < SECRET_MIN_BYTES:
            raise ValueError(
                f"must be at least {SECRET_MIN_BYTES} bytes; make one with `openssl rand -hex 32`"
            )
        return value
