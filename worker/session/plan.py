"""What a session needs, validated before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from worker.artifacts import Artifacts
    from worker.display.reserved import ReservedDisplay
    from worker.task.confinement import Confinement
    from worker.task.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A warning about the machine or the environment, to be reported as an event."""

    event: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Validated input of a session: a later failure is not a usage error.

    Attributes:
        temporary_dir: where the session creates its folder.
        environ: the environment of every process that the session starts.
        task_environ: variables that only the task gets in addition.
        launch: options of Playwright's `launch`.
        listener: the stream's TCP socket; it listens already.
        confinement: the task's access to files; None: as its user's.
        display: the X server's display; None: it chooses a free one.
        novnc_dir: folder of noVNC; None if the debug page is not served.
    """

    task_id: str
    target: Target
    inputs: dict[str, Any]
    temporary_dir: Path
    environ: dict[str, str]
    task_environ: dict[str, str]
    launch: dict[str, Any]
    notices: tuple[Notice, ...]
    timeout_s: float
    hold_s: float
    artifacts: Artifacts
    log_max_bytes: int
    confinement: Confinement | None
    termination_log: Path | None
    listener: socket.socket
    display: ReservedDisplay | None
    stream_key: bytes
    novnc_dir: Path | None
    allowed_origins: tuple[str, ...]
    max_viewers: int
    trusted_proxies: tuple[str, ...]
