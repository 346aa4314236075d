"""Unit tests start no process, open no network connection and do not sleep."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A busy machine may be slow, which is no failure.
settings.register_profile("worker", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("worker")

_FORBIDDEN = {"subprocess.Popen", "os.fork", "os.posix_spawn", "socket.connect", "time.sleep"}
_enabled = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _enabled or event not in _FORBIDDEN:
        return
    if event == "socket.connect" and _family(arguments[0]) == socket.AF_UNIX:
        return
    if event == "time.sleep" and arguments[0] == 0:
        return
    raise AssertionError(f"{event}{arguments}: such a test belongs in tests/integration")


def _family(connecting: object) -> int:
    assert isinstance(connecting, socket.socket)
    return connecting.family


sys.addaudithook(_audit)  # cannot be removed, hence `_enabled`


@pytest.fixture(autouse=True)
def isolation() -> Iterator[None]:
    """Forbid what is slow or depends on the machine."""
    global _enabled  # noqa: PLW0603 - an audit hook has no other state
    _enabled = True
    yield
    _enabled = False
