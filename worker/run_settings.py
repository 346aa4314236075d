"""The settings of a run as plain values, read and checked by a short-lived process.

pydantic takes 0.13 s to load and 12 MB to keep. So a fork of this process loads it, checks, says
what it found, and is gone, while this one loads what it needs itself.
"""

from __future__ import annotations

import os
import pickle  # of our own bytes only, from a fork of this very process
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from worker.errors import SessionError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from worker.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What a run takes from the settings; see there for what each means."""

    task_id: str
    timeout_s: float
    host: str
    port: int
    artifacts_dir: Path | None
    termination_log: Path | None
    hold_s: float
    inputs: dict[str, Any]
    stream_secret: str | None = field(repr=False)
    stream_key: str | None = field(repr=False)
    serves_debug_page: bool
    allowed_origins: tuple[str, ...]
    max_viewers: int
    trusted_proxies: tuple[str, ...]
    chromium: Path | None
    chromium_sandbox: Literal["auto", "on", "off"]
    novnc_dir: Path


def of(settings: Settings) -> RunSettings:
    """A run's part of the settings."""
    secret, key = settings.stream_secret, settings.stream_key
    return RunSettings(
        task_id=settings.task_id,
        timeout_s=settings.timeout_s,
        host=settings.host,
        port=settings.port,
        artifacts_dir=settings.artifacts_dir,
        termination_log=settings.termination_log,
        hold_s=settings.hold_s,
        inputs=settings.inputs,
        stream_secret=None if secret is None else secret.get_secret_value(),
        stream_key=None if key is None else key.get_secret_value(),
        serves_debug_page=settings.serves_debug_page,
        allowed_origins=settings.allowed_origins,
        max_viewers=settings.max_viewers,
        trusted_proxies=settings.trusted_proxies,
        chromium=settings.chromium,
        chromium_sandbox=settings.chromium_sandbox,
        novnc_dir=settings.novnc_dir,
    )


def load(options: Mapping[str, object]) -> RunSettings:
    """Read them in this process.

    Raises:
        SettingError: as `settings.load` does.
    """
    from worker import settings  # noqa: PLC0415 - this is what is kept out of the run's process

    return of(settings.load(options))


class Reading:
    """A process that reads the settings. `result` is to be called once."""

    def __init__(self, options: Mapping[str, object]) -> None:
        """Start it.

        Args:
            options: what the command line gave, by field name.

        Raises:
            SessionError: there is no process left on this machine.
        """
        self._answer, writing_end = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = os.fork()
        except OSError as error:
            raise SessionError(f"no process can be started: {error.strerror}") from error
        if not self._pid:
            _read(options, writing_end)
        os.close(writing_end)

    def result(self) -> RunSettings:
        """Wait for what it found.

        Raises:
            SettingError: as `settings.load` does.
            SessionError: it ended without a word.
        """
        with open(self._answer, "rb") as answer:  # noqa: PTH123 - a descriptor
            said = answer.read()
        _, status = os.waitpid(self._pid, 0)
        if status or not said:
            code = os.waitstatus_to_exitcode(status)
            raise SessionError(f"the process that reads the settings ended with {code}")
        found: RunSettings | WorkerError = pickle.loads(said)  # noqa: S301 - see its import
        if isinstance(found, WorkerError):
            raise found
        return found


def _read(options: Mapping[str, object], writing_end: int) -> NoReturn:
    """The process itself: it must never return into the program that it is a copy of."""
    code = 1
    try:
        found: RunSettings | WorkerError
        try:
            found = load(options)
        except WorkerError as error:
            found = error
        with open(writing_end, "wb") as answer:
            answer.write(pickle.dumps(found))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
