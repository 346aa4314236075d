"""The order: all that a session needs to know, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from worker.artifacts import Artifacts
    from worker.task.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something about this machine that the user should hear, as an event."""

    event: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a session needs, checked: nothing of it can be a user's mistake any more."""

    task_id: str
    target: Target
    inputs: dict[str, Any]
    environ: dict[str, str]  # of everything that is started
    task_environ: dict[str, str]  # and more of it, for the task alone
    launch: dict[str, Any]
    notices: tuple[Notice, ...]
    timeout_s: float
    hold_s: float
    artifacts: Artifacts
    termination_log: Path | None
    listener: socket.socket
    stream_key: bytes
    novnc_dir: Path | None
    allowed_origins: tuple[str, ...]
    max_viewers: int
    trusted_proxies: tuple[str, ...]
