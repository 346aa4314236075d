"""Runs all checks of `worker doctor`."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from worker.doctor import machine, software
from worker.doctor.finding import Level, failure, ok

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from worker.doctor.finding import Finding
    from worker.settings.run import RunSettings


def examine(settings: RunSettings) -> Iterator[Finding]:
    """Check everything that a task needs."""
    artifacts = settings.artifacts_dir or Path("artifacts")
    yield ok(f"Python {platform.python_version()} ({sys.executable})")
    for check in (
        software.programs(),
        software.chromium(settings.chromium),
        software.novnc(settings.novnc_dir, wanted=settings.serves_debug_page),
        software.packages(),
        software.fonts(),
        machine.shared_memory(),
        machine.chromium_sandbox(settings.chromium_sandbox),
        machine.isolation(),
        machine.descriptors(),
        machine.memory(),
        machine.folders(artifacts),
        machine.display(),
        machine.port(settings.host, settings.port),
    ):
        yield from _findings(check)


def can_run(findings: Iterable[Finding]) -> bool:
    """Whether tasks can run."""
    return all(finding.level != Level.FAILURE for finding in findings)


def _findings(check: Iterator[Finding]) -> Iterator[Finding]:
    """The findings of a check; an exception in it is a finding too."""
    try:
        yield from check
    except Exception as error:
        name = getattr(check, "__name__", "a check")
        yield failure(
            f"the check of {name.replace('_', ' ')} failed",
            f"{type(error).__name__}: {error}; report it as a defect of worker",
        )
