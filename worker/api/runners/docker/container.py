"""A task as a container: how it is asked for, and what the engine's words about it mean.

The engine is the only memory. What never changes stands in labels; the little that changes stands
in the container's name, which the engine changes in one step: `<id>` until it has ended (by it the
gateway finds it), then perhaps `<id>.cancelled-<milliseconds since 1970>`, `<id>.unstartable`, and
`….told` once the callback was delivered.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from worker import outcome
from worker.api.runners import container_worker
from worker.api.runners.protocol import Cursor, TaskRecord, TaskRequest, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

ARTIFACTS_PATH: Final = "/artifacts"
TOLD: Final = ".told"
UNSTARTABLE: Final = ".unstartable"
CANCELLED: Final = ".cancelled-"
TASK_LABEL: Final = "worker.task-id"
ACCOUNT_LABEL: Final = "worker.account"
NETWORK_LABEL: Final = "worker.network"
_SHM_BYTES: Final = 1 << 30
_PIDS_MAX: Final = 4096
_LOG_OPTIONS: Final = {"max-size": "20m", "max-file": "2"}
_NO_TIME: Final = "0001-"
_ENDED_STATES: Final = frozenset({"exited", "dead", "removing"})
_CANCELLED_CODES: Final = frozenset({outcome.EXIT_SIGTERM, outcome.EXIT_SIGINT})
_MS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What all containers of a runner have in common.

    `endpoints` is a folder of the engine's machine, or a volume, or None for the image's own
    examples; `seccomp` is the profile's JSON.
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
            **container_worker.own(request),
            # The engine's administrators can read it, and it opens this one task's stream.
            "WORKER_STREAM_KEY": stream_key.hex(),
        }
        labels = {
            TASK_LABEL: request.task_id,
            ACCOUNT_LABEL: request.account,
            NETWORK_LABEL: self.network,
            "worker.endpoint": request.endpoint_name,
            "worker.created-at": request.created_at.isoformat(),
            "worker.digest": request.digest,
            "worker.callback-url": request.callback_url or "",
        }
        return {
            "Image": self.image,
            "Cmd": container_worker.command(request, mounted=self.endpoints is not None),
            "Env": [f"{name}={value}" for name, value in environ.items()],
            "Labels": labels,
            "HostConfig": self._host_config(),
            "NetworkingConfig": {"EndpointsConfig": {self.network: {}}},
        }

    def _host_config(self) -> dict[str, Any]:
        # Without a name: it goes with the container, and outlives the process in it.
        mounts: list[dict[str, Any]] = [{"Type": "volume", "Target": ARTIFACTS_PATH}]
        if self.endpoints is not None:
            mounts.append(
                {
                    "Type": "bind" if self.endpoints.startswith("/") else "volume",
                    "Source": self.endpoints,
                    "Target": container_worker.ENDPOINTS_PATH,
                    "ReadOnly": True,
                }
            )
        return {
            "NetworkMode": self.network,
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": ""},  # noqa: S108 - the container's own
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={self.seccomp}"],
            "ShmSize": _SHM_BYTES,
            "Memory": self.memory_bytes,
            "PidsLimit": _PIDS_MAX,
            "LogConfig": {"Type": "json-file", "Config": _LOG_OPTIONS},
            "Mounts": mounts,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One line of the engine's list of containers."""

    id: str
    name: str
    state: str
    labels: Mapping[str, str]
    address: str

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Container:
        """From `GET /containers/json`."""
        labels = summary["Labels"]
        networks = summary["NetworkSettings"]["Networks"]
        network = networks.get(labels[NETWORK_LABEL]) or {}
        return cls(
            id=summary["Id"],
            name=(summary["Names"] or [""])[0].removeprefix("/"),
            state=summary["State"],
            labels=labels,
            address=network.get("IPAddress", ""),
        )

    @property
    def task_id(self) -> str:
        """Whose container it is."""
        return self.labels[TASK_LABEL]

    @property
    def created_at(self) -> datetime:
        """When the task was asked for."""
        return datetime.fromisoformat(self.labels["worker.created-at"])

    @property
    def queued(self) -> bool:
        """Whether it is to be started."""
        return self.state == "created" and not (
            CANCELLED in self.name or self.name.endswith((UNSTARTABLE, UNSTARTABLE + TOLD))
        )

    @property
    def ended(self) -> bool:
        """Whether it runs no more, or never will."""
        return self.state in _ENDED_STATES or (self.state == "created" and not self.queued)

    @property
    def running(self) -> bool:
        """Whether it takes a place of those that run."""
        return not self.queued and not self.ended

    @property
    def place(self) -> Cursor:
        """Where it stands among the others."""
        return Cursor(created_at=self.created_at, task_id=self.task_id)

    @property
    def callback_owed(self) -> bool:
        """Whether a callback was asked for and not yet delivered; of use once it has ended."""
        return bool(self.labels["worker.callback-url"]) and not self.name.endswith(TOLD)

    @property
    def cancelled_at(self) -> datetime | None:
        """When its name was made to say so."""
        found = re.search(re.escape(CANCELLED) + r"(\d+)", self.name)
        return datetime.fromtimestamp(int(found[1]) / _MS, UTC) if found else None

    def name_when_cancelled(self, now: datetime) -> str:
        """What it is to be called from now on."""
        return f"{self.task_id}{CANCELLED}{int(now.timestamp() * _MS)}"


def record(container: Container, details: Mapping[str, Any]) -> TaskRecord:
    """What the engine alone knows of a task.

    Args:
        container: its line in the list.
        details: `GET /containers/{id}/json` of it.
    """
    labels, state = container.labels, details["State"]
    environ = dict(pair.split("=", 1) for pair in details["Config"]["Env"])
    known = TaskRecord(
        task_id=container.task_id,
        account=labels[ACCOUNT_LABEL],
        endpoint_name=labels["worker.endpoint"],
        status=TaskStatus.QUEUED,
        created_at=container.created_at,
        digest=labels["worker.digest"],
        inputs=json.loads(environ["WORKER_INPUTS"]),
        timeout_s=float(environ["WORKER_TIMEOUT_S"]),
        callback_url=labels["worker.callback-url"] or None,
        started_at=_time(state["StartedAt"]),
    )
    if container.ended:
        return dataclasses.replace(known, **_end(container, state, details["Created"]))
    if not container.queued:
        return dataclasses.replace(known, status=TaskStatus.RUNNING)
    return known


def _end(container: Container, state: Mapping[str, Any], created: str) -> dict[str, Any]:
    """How it ended, as far as the engine can tell: the worker's own word outranks this."""
    finished_at = _time(state["FinishedAt"])
    cancelled_at = container.cancelled_at
    if container.state == "created":
        if cancelled_at is not None:
            return {"status": TaskStatus.CANCELLED, "finished_at": cancelled_at}
        error = {"type": "StartFailed", "message": state["Error"] or "the engine did not start it"}
        at = finished_at or _time(created)
        return {"status": TaskStatus.FAILED, "finished_at": at, "error": error}
    code = int(state["ExitCode"])
    known: dict[str, Any] = {"finished_at": finished_at, "exit_code": code}
    if code == 0:
        return {**known, "status": TaskStatus.SUCCESS}
    if cancelled_at is not None or code in _CANCELLED_CODES:
        return {**known, "status": TaskStatus.CANCELLED}
    if state.get("OOMKilled"):
        error = {"type": "OOMKilled", "message": "the container ran out of memory"}
    else:
        said = state.get("Error") or f"the worker ended with code {code} and left no result"
        error = {"type": "WorkerLost", "message": said}
    return {**known, "status": TaskStatus.FAILED, "error": error}


def _time(text: str) -> datetime | None:
    """RFC 3339 with nanoseconds, which `datetime` does not know."""
    if text.startswith(_NO_TIME):
        return None
    return datetime.fromisoformat(re.sub(r"\.(\d{1,6})\d*", r".\1", text)).astimezone(UTC)
