"""What a test needs of the machine: it is skipped without, and fails in CI."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def lacking(what: str, mend: str) -> NoReturn:
    """Skip, or in CI fail, for want of something."""
    if os.environ.get("CI"):
        pytest.fail(f"missing in CI: {what}; {mend}")
    pytest.skip(f"missing: {what}; {mend}")


def need(*programs: str, mend: str) -> None:
    """Go on only where these programs are."""
    if missing := [name for name in programs if shutil.which(name) is None]:
        lacking(", ".join(missing), mend)
