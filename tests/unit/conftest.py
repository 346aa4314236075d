"""Unit tests start no process, connect to no other machine and do not sleep."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from worker import trees

# A busy machine may be slow, which is no failure.
settings.register_profile("worker", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("worker")

_FORBIDDEN = {"subprocess.Popen", "os.fork", "os.posix_spawn", "socket.connect", "time.sleep"}
_enabled = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _enabled or event not in _FORBIDDEN:
        return
    if event == "socket.connect" and _is_local(arguments[1]):
        return
    if event == "time.sleep" and arguments[0] == 0:
        return
    raise AssertionError(f"{event}{arguments}: such a test belongs in tests/integration")


def _is_local(address: object) -> bool:
    """Whether it is a Unix socket or a loopback address."""
    return not isinstance(address, tuple) or str(address[0]).startswith(("127.", "::1"))


sys.addaudithook(_audit)  # cannot be removed, hence `_enabled`


@pytest.fixture(autouse=True)
def isolation() -> Iterator[None]:
    """Forbid what is slow or depends on the machine."""
    global _enabled  # noqa: PLW0603 - an audit hook has no other state
    _enabled = True
    yield
    _enabled = False


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Remove it after the test: pytest cannot remove trees that are deeper than its call stack."""
    yield tmp_path
    trees.remove(tmp_path, limit_s=60)
