"""Settings of `worker serve` with the local runner."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from worker.settings.serve import ServeSettings
from worker.settings.shared import PREFIX, split_list, split_paths

_NAME: Final = re.compile(r"[^=*\s]+\*?|\*")
_UID_MIN: Final = 1000
_UID_MAX: Final = 2**32 - 2


class LocalSettings(ServeSettings):
    """What the local runner reads in addition to the API's settings."""

    local_isolation: Literal["auto", "landlock", "off"] = Field(
        default="auto",
        description="How tasks are isolated from the API and from each other: `auto`: each with a "
        "uid of its own, if the API is root, and by Landlock; `landlock`: without uids; `off`.",
    )
    local_uids: str = Field(
        default="70000-70999",
        pattern=r"^\d{1,10}-\d{1,10}$",
        description="Range of the tasks' uids (and gids), `first-last`, at least "
        "`WORKER_MAX_RUNNING` of them; no user or group may have one. The default is used neither "
        "by Debian nor by systemd nor for containers.",
    )
    local_readable: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="Files and folders that tasks may read as well, separated by `:`. They may "
        "read the system's, the interpreter's and the endpoints' folders.",
    )
    local_environment: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Variables of the API's environment that tasks get as well, comma-separated; "
        "`*` at the end stands for any text (`AWS_*`). "
        "[Which they always get](#environment-of-local-tasks).",
    )
    local_shared: bool = Field(
        default=False,
        description="Several accounts may start tasks even if nothing isolates these from each "
        "other.",
    )

    account_max_bytes: int = Field(
        default=10 << 30,
        ge=0,
        description="What the tasks of one account may occupy on the disk, ended ones included. "
        "With more, its running task is ended, and further ones are refused with 429. 0: no "
        "limit.",
    )
    account_max_files: int = Field(
        default=1_000_000,
        ge=0,
        description="The same for the number of their files and folders. 0: no limit.",
    )

    _split_paths = field_validator("local_readable", mode="before")(split_paths)
    _split_list = field_validator("local_environment", mode="before")(split_list)

    @field_validator("local_environment")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not the name of a variable, with or without `*` at its end"
                )
            if name.removesuffix("*").startswith(PREFIX):
                raise ValueError(
                    f"{name!r}: the API's own variables are not passed on, except those of "
                    "`worker run`, which always are"
                )
        return value

    @field_validator("local_uids")
    @classmethod
    def _is_range(cls, value: str) -> str:
        first, last = map(int, value.split("-"))
        if not _UID_MIN <= first <= last <= _UID_MAX:
            raise ValueError(f"must be a range within {_UID_MIN}-{_UID_MAX}")
        return value

    @property
    def uids(self) -> range:
        """The range."""
        first, last = map(int, self.local_uids.split("-"))
        return range(first, last + 1)
