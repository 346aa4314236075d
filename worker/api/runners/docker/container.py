"""A task's container as the engine lists it.

The engine holds all state. What never changes is in labels. What changes is in the container's
name, because the engine renames atomically: `<id>` until the container has ended (the gateway
resolves it), then optionally `<id>.cancelled-<milliseconds since 1970>`, `<id>.unstartable` or
`<id>.overdue`, and a final `.notified` once the task's callback was delivered or has failed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from worker.api.runners.fields import time_of
from worker.api.runners.protocol import Cursor, TaskRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

ARTIFACTS_PATH: Final = "/artifacts"
NOTIFIED: Final = ".notified"
UNSTARTABLE: Final = ".unstartable"
CANCELLED: Final = ".cancelled-"
OVERDUE: Final = ".overdue"
TASK_LABEL: Final = "worker.task-id"
ACCOUNT_LABEL: Final = "worker.account"
NETWORK_LABEL: Final = "worker.network"
ENDPOINT_LABEL: Final = "worker.endpoint"
CREATED_AT_LABEL: Final = "worker.created-at"
DIGEST_LABEL: Final = "worker.digest"
CALLBACK_URL_LABEL: Final = "worker.callback-url"
# Version 0.1 wrote `.told`; its containers may still exist.
_NOTIFIED_SUFFIXES: Final = (NOTIFIED, ".told")
_ENDED_STATES: Final = frozenset({"exited", "dead", "removing"})
_MS: Final = 1000
_CANCELLED_AT: Final = re.compile(re.escape(CANCELLED) + r"([0-9]{1,14})(?![0-9])")
_LABELS: Final = frozenset(
    {
        TASK_LABEL,
        ACCOUNT_LABEL,
        NETWORK_LABEL,
        ENDPOINT_LABEL,
        CREATED_AT_LABEL,
        DIGEST_LABEL,
        CALLBACK_URL_LABEL,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container as it was when the engine was asked.

    Another client may have made it: the rest is defined only if `is_task` is true.
    """

    id: str
    name: str
    state: str
    labels: Mapping[str, str]
    address: str

    @classmethod
    def from_list(cls, summary: Mapping[str, Any]) -> Container:
        """From an item of `GET /containers/json`."""
        name = (summary.get("Names") or [""])[0]
        return cls._of(summary, name, summary.get("State"), summary.get("Labels"))

    @classmethod
    def from_inspect(cls, details: Mapping[str, Any]) -> Container:
        """From `GET /containers/{id}/json`."""
        state, config = details.get("State") or {}, details.get("Config") or {}
        return cls._of(details, details.get("Name"), state.get("Status"), config.get("Labels"))

    @classmethod
    def _of(cls, answer: Mapping[str, Any], name: Any, state: Any, labels: Any) -> Container:
        labels = labels or {}
        networks = (answer.get("NetworkSettings") or {}).get("Networks") or {}
        network = networks.get(labels.get(NETWORK_LABEL)) or {}
        return cls(
            id=answer.get("Id") or "",
            name=(name or "").removeprefix("/"),
            state=state or "",
            labels=labels,
            address=network.get("IPAddress") or "",
        )

    @classmethod
    def of(cls, task: TaskRecord) -> Container:
        """The container that a record of the docker runner was read from."""
        container: Container = task.handle
        return container

    @property
    def is_task(self) -> bool:
        """Whether it has the labels of a container that the docker runner created."""
        return self.labels.keys() >= _LABELS and time_of(self.labels[CREATED_AT_LABEL]) is not None

    @property
    def task_id(self) -> str:
        """The id of its task, from a label."""
        return self.labels[TASK_LABEL]

    @property
    def account(self) -> str:
        """The account that the task belongs to, from a label."""
        return self.labels[ACCOUNT_LABEL]

    @property
    def created_at(self) -> datetime:
        """When the API accepted the task."""
        return datetime.fromisoformat(self.labels[CREATED_AT_LABEL])

    @property
    def queued(self) -> bool:
        """Whether it waits to be started."""
        return self.state == "created" and not (CANCELLED in self.name or UNSTARTABLE in self.name)

    @property
    def ended(self) -> bool:
        """Whether its process has ended or will never be started."""
        return self.state in _ENDED_STATES or (self.state == "created" and not self.queued)

    @property
    def running(self) -> bool:
        """Whether it counts against the limit of running containers."""
        return not self.queued and not self.ended

    @property
    def cursor(self) -> Cursor:
        """Its position in the queue and in a list of tasks."""
        return Cursor(created_at=self.created_at, task_id=self.task_id)

    @property
    def callback_pending(self) -> bool:
        """Whether a callback is still to be delivered; meaningful once the container has ended."""
        return bool(self.labels[CALLBACK_URL_LABEL]) and not self.name.endswith(_NOTIFIED_SUFFIXES)

    @property
    def cancelled_at(self) -> datetime | None:
        """The time of the cancellation that its name records."""
        found = _CANCELLED_AT.search(self.name)
        return datetime.fromtimestamp(int(found[1]) / _MS, UTC) if found else None

    @property
    def overdue(self) -> bool:
        """Whether the watchdog ended it."""
        return OVERDUE in self.name

    @property
    def overdue_name(self) -> str:
        """The name that records that the watchdog ends it."""
        return f"{self.task_id}{OVERDUE}"

    def cancelled_name(self, now: datetime) -> str:
        """The name that records a cancellation at this time."""
        return f"{self.task_id}{CANCELLED}{int(now.timestamp() * _MS)}"
