"""Programs that tests need: a missing one skips the test, or fails it in CI."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def lacking(what: str, mend: str) -> NoReturn:
    """Skip the test, or in CI fail it, because something is missing."""
    if os.environ.get("CI"):
        pytest.fail(f"missing in CI: {what}; {mend}")
    pytest.skip(f"missing: {what}; {mend}")


def need(*programs: str, mend: str) -> None:
    """Return if these programs are installed; otherwise skip or fail."""
    if missing := [name for name in programs if shutil.which(name) is None]:
        lacking(", ".join(missing), mend)
