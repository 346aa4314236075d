"""Programs that tests need: a missing one skips the test, or fails it in CI."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def skip_or_fail(what: str, install: str) -> NoReturn:
    """Skip the test, or in CI fail it, because something is missing."""
    if os.environ.get("CI"):
        pytest.fail(f"missing in CI: {what}; {install}")
    pytest.skip(f"missing: {what}; {install}")


def require(*programs: str, install: str) -> None:
    """Return if these programs are installed; otherwise skip or fail."""
    if missing := [name for name in programs if shutil.which(name) is None]:
        skip_or_fail(", ".join(missing), install)
