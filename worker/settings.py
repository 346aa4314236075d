"""Settings: every value that a user can set, from `WORKER_…` variables and options.

A plain dataclass: pydantic, which could check it too, takes a run 0.13 s and 12 MB.
"""

from __future__ import annotations

import os
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from worker import values
from worker.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.values import Secret

PREFIX: Final = "WORKER_"
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
PORT_MAX: Final = 65535
VIEWERS_LIMIT: Final = 200  # three descriptors each, of a stream server's 1024


_TASK_ID: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"
_TASK_ID_WORDS: Final = (
    "1 to 128 letters, digits, `.`, `_` and `-`, the first and the last a letter or digit"
)
_BASE_URL: Final = r"wss?://[^/?#\s]+(?:/[^?#\s]*)?"
_BASE_URL_WORDS: Final = "a URL such as wss://stream.example.com"


def _setting(read: Callable[[str], Any], *, what: str, **default: Any) -> Any:
    """A field: how its text is read, its default, and what the README says of it."""
    return field(metadata={"read": read, "what": what}, **default)


def _new_task_id() -> str:
    import uuid  # noqa: PLC0415 - most tasks are given one

    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the commands need to know; read once, never changed."""

    task_id: str = _setting(
        values.matching(_TASK_ID, _TASK_ID_WORDS),
        default_factory=_new_task_id,
        what="The task's id: letters, digits, `.`, `_` and `-`. Default: a new UUID.",
    )
    timeout_s: float = _setting(
        values.seconds(zero=False),
        default=HOUR_S,
        what="A task that runs longer fails with exit code 124.",
    )
    host: str = _setting(
        values.text,
        default="127.0.0.1",
        what="The address that the stream listens on.",
    )
    port: int = _setting(
        values.whole(0, PORT_MAX),
        default=6080,
        what="The stream's port; 0 picks a free one.",
    )
    artifacts_dir: Path | None = _setting(
        values.path,
        default=None,
        what="Where `result.json` and `task.log` go. Default: `artifacts/<task id>`.",
    )
    termination_log: Path | None = _setting(
        values.path,
        default=None,
        what="A file that gets the outcome too, in at most 4096 bytes, if it is there: "
        "Kubernetes' `terminationMessagePath`.",
    )
    hold_s: float = _setting(
        values.seconds(zero=True),
        default=0,
        what="Keep display and stream up for so long after the task.",
    )
    inputs: dict[str, Any] = _setting(
        values.json_object,
        default_factory=dict,
        what="The task's inputs, as a JSON object.",
    )
    stream_secret: Secret | None = _setting(
        values.master_secret,
        default=None,
        what="The fleet's master secret, at least 32 bytes; a worker derives its key.",
    )
    stream_key: Secret | None = _setting(
        values.hex_key,
        default=None,
        what="This task's own stream key: 64 hex digits. Given neither: a random key.",
    )
    debug_page: bool | None = _setting(
        values.flag,
        default=None,
        what="Serve the noVNC page at `/`. Default: only when the host is loopback.",
    )
    allowed_origins: tuple[str, ...] = _setting(
        values.parts,
        default=(),
        what="Origins whose pages may open the stream and call the API, comma-separated. "
        "Name the API's own as well, for its dashboard. "
        "Default: any for the stream, none for the API.",
    )
    max_viewers: int = _setting(
        values.whole(1, VIEWERS_LIMIT),
        default=16,
        what="How many may watch at once, besides the one in control; at most 200.",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        values.networks,
        default=(),
        what="Proxies whose X-Forwarded-For is believed, comma-separated addresses and "
        "networks (`10.0.0.0/8`). Default: none.",
    )
    stream_base_url: str | None = _setting(
        values.matching(_BASE_URL, _BASE_URL_WORDS),
        default=None,
        what="The gateway's public address (`wss://stream.example.com`) for stream URLs.",
    )
    chromium: Path | None = _setting(
        values.path,
        default=None,
        what="The browser's path. Default: the first one found on PATH.",
    )
    chromium_sandbox: Literal["auto", "on", "off"] = _setting(
        values.one_of("auto", "on", "off"),
        default="auto",
        what="Chromium's own sandbox; `auto` turns it off where the kernel refuses it.",
    )
    novnc_dir: Path = _setting(
        values.path,
        default=Path("/usr/share/novnc"),
        what="Where noVNC is, for the pages.",
    )
    runner: Literal["local", "docker", "kubernetes"] = _setting(
        values.one_of("local", "docker", "kubernetes"),
        default="local",
        what="What `worker serve` starts tasks with.",
    )
    api_host: str = _setting(
        values.text,
        default="127.0.0.1",
        what="The address that the API listens on.",
    )
    api_port: int = _setting(
        values.whole(0, PORT_MAX),
        default=8000,
        what="The API's port; 0 picks a free one.",
    )
    api_keys_file: Path | None = _setting(
        values.path,
        default=None,
        what="The API's keys, hashed. Default: `api-keys.json` in the state.",
    )
    state_dir: Path = _setting(
        values.path,
        default=Path("~/.local/state/worker"),
        what="What the API keeps: its tasks, their artifacts, its own secret.",
    )
    endpoints_dir: Path | None = _setting(
        values.path,
        default=None,
        what="Task files, each an endpoint of its stem's name. Default: the examples.",
    )
    max_running: int = _setting(
        values.whole(1),
        default=4,
        what="Tasks at a time (local, docker); the others are queued.",
    )
    queue_max: int = _setting(
        values.whole(0),
        default=1000,
        what="More queued tasks than this are refused with 429.",
    )
    retention_s: float | None = _setting(
        values.seconds(zero=True),
        default=None,
        what="An ended task, its artifacts and its Idempotency-Key are kept for so long; 0: "
        "for ever. Default: 7 days (local), one day (docker).",
    )
    image: str | None = _setting(
        values.text,
        default=None,
        what="The workers' image. Default: `worker`, or what the Job's template says.",
    )
    network: str = _setting(
        values.text,
        default="workers",
        what="The Docker network of the workers and their gateway.",
    )
    memory_bytes: int = _setting(
        values.whole(256 << 20),
        default=3 << 30,
        what="A container's memory, in the docker runner.",
    )
    docker_endpoints: str | None = _setting(
        values.text,
        default=None,
        what="The endpoints as the Docker engine finds them: a folder of its machine, or a "
        "volume. Default: `WORKER_ENDPOINTS_DIR`.",
    )
    seccomp_file: Path | None = _setting(
        values.path,
        default=None,
        what="The containers' seccomp profile. Default: `docker/seccomp.json`.",
    )
    job_template: Path | None = _setting(
        values.path,
        default=None,
        what="The Job that the kubernetes runner makes tasks from. Default: "
        "`docker/k8s/task/job.yaml`.",
    )
    kubernetes_namespace: str | None = _setting(
        values.text,
        default=None,
        what="Where its Jobs are. Default: the API's own namespace.",
    )
    callback_private: bool = _setting(
        values.flag,
        default=False,
        what="Let callbacks go to loopback, private and link-local addresses.",
    )
    given: frozenset[str] = frozenset()
    """The names of those that were set, and are not the default."""

    @property
    def serves_debug_page(self) -> bool:
        """Whether `GET /` is the noVNC page."""
        if self.debug_page is None:
            return self.host in LOOPBACK_HOSTS
        return self.debug_page


def names() -> list[str]:
    """The settings' names."""
    return [each.name for each in _fields()]


def load(options: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Args:
        options: what the command line gave, by field name; it outranks the environment.
        environ: the variables; default: this process's.

    Raises:
        SettingError: a value is bad, or a `WORKER_…` variable is unknown.
    """
    variables = os.environ if environ is None else environ
    _refuse_unknown(variables)
    found: dict[str, Any] = {}
    wrong = []
    for each in _fields():
        variable = PREFIX + each.name.upper()
        value = options.get(each.name, variables.get(variable) or None)
        if value is None:
            continue
        try:
            found[each.name] = each.metadata["read"](value) if isinstance(value, str) else value
        except ValueError as error:
            option = each.name.removeprefix("api_").replace("_", "-")  # `serve --port` is its own
            given = f"--{option}" if each.name in options else variable
            wrong.append(f"{given}: {error}")
    if wrong:
        raise SettingError("; ".join(wrong))
    return Settings(**found, given=frozenset(found))


def _fields() -> list[Field[Any]]:
    return [each for each in fields(Settings) if each.metadata]


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [PREFIX + name.upper() for name in names()]
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name not in known:
            import difflib  # noqa: PLC0415 - only for a mistake

            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingError(f"unknown variable {name}{hint}")


def table() -> str:
    """The settings as the README shows them: a Markdown table."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for each in _fields():
        default = None if each.default is MISSING else each.default
        plain = isinstance(default, str | int | float) and not isinstance(default, bool)
        shown = f"`{default}`" if plain or isinstance(default, Path) else ""
        rows.append(f"| `{PREFIX}{each.name.upper()}` | {shown} | {each.metadata['what']} |")
    return "\n".join(rows)
