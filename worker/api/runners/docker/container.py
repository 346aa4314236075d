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
_LABELS: Final = frozenset(
    {TASK_LABEL, ACCOUNT_LABEL, ENDPOINT_LABEL, CREATED_AT_LABEL, DIGEST_LABEL, CALLBACK_URL_LABEL}
)
# Version 0.1 wrote `.told`; its containers may still exist.
_NOTIFIED_SUFFIXES: Final = (NOTIFIED, ".told")
_ENDED_STATES: Final = frozenset({"exited", "dead", "removing"})
_MS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container as it was when the engine was asked."""

    id: str
    name: str
    state: str
    labels: Mapping[str, str]
    address: str

    @classmethod
    def from_list(cls, summary: Mapping[str, Any]) -> Container:
        """From an item of `GET /containers/json`.

        Raises:
            Exception: it is not a container as the runner makes them.
        """
        name = (summary["Names"] or [""])[0]
        made = cls._of(summary, name, summary["State"], summary["Labels"])
        missing = _LABELS - made.labels.keys()
        if missing or made.created_at.tzinfo is None:
            raise ValueError(f"a container with invalid labels: {', '.join(sorted(missing))}")
        return made

    @classmethod
    def from_inspect(cls, details: Mapping[str, Any]) -> Container:
        """From `GET /containers/{id}/json`."""
        return cls._of(
            details, details["Name"], details["State"]["Status"], details["Config"]["Labels"] or {}
        )

    @classmethod
    def _of(
        cls, answer: Mapping[str, Any], name: str, state: str, labels: Mapping[str, str]
    ) -> Container:
        networks = answer["NetworkSettings"]["Networks"]
        network = networks.get(labels.get(NETWORK_LABEL)) or {}
        return cls(
            id=answer["Id"],
            name=name.removeprefix("/"),
            state=state,
            labels=labels,
            address=network.get("IPAddress", ""),
        )

    @classmethod
    def of(cls, task: TaskRecord) -> Container:
        """The container that a record of the docker runner was read from."""
        container: Container = task.handle
        return container

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
        found = re.search(re.escape(CANCELLED) + r"(\d+)", self.name)
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
