"""Fixtures that start workers and APIs, and check that nothing of them is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from isolated_api import IsolatedApi
from required import require, skip_or_fail
from shared_memory import IpcNamespace
from worker_run import WorkerRun
from worker_serve import WorkerServe

import worker.stream.websocket  # noqa: F401 - imported before the next line

sys.modules.pop(
    "numpy", None
)  # worker.stream blocks numpy by an entry here, on which hypothesis fails

NEEDED = ("Xvfb", "x11vnc", "matchbox-window-manager", "chromium")


@pytest.fixture(scope="session")
def display_programs() -> None:
    """Skip, or in CI fail, where a program of the display stack is missing."""
    require(*NEEDED, install="run `make setup`")


@pytest.fixture
def repetition(request: pytest.FixtureRequest) -> int:
    """The number of this repetition; parametrized by `repeated`."""
    number: int = request.param
    return number


@pytest.fixture
def ipc_namespace() -> Iterator[IpcNamespace]:
    """A System V IPC namespace for the test, in which no process and no segment may be left."""
    namespace = IpcNamespace()
    yield namespace
    assert not namespace.leftovers()


@pytest.fixture
def run(display_programs: None, ipc_namespace: IpcNamespace) -> Iterator[Callable[..., WorkerRun]]:
    """Start workers; after the test no process, file or socket of them may be left."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))  # short: sockets live below it
    runs: list[WorkerRun] = []

    def start(*arguments: str, **options: Any) -> WorkerRun:
        started = WorkerRun(folder / str(len(runs)), *arguments, **options)
        runs.append(started)
        return started

    yield start
    _end(folder, runs)


@pytest.fixture
def serve(
    display_programs: None, ipc_namespace: IpcNamespace, tmp_path: Path
) -> Iterator[Callable[..., WorkerServe]]:
    """Start APIs; after the test no process or file of them or their workers may be left.

    Their tasks may read the test's folder, `tmp_path`.
    """
    with _apis(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the tasks of `shared_serve` may read."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def shared_serve(
    display_programs: None, shared_folder: Path
) -> Iterator[Callable[..., WorkerServe]]:
    """Like `serve`, for an API that several tests of a module use, one after the other."""
    with _apis(shared_folder) as start:
        yield start


@pytest.fixture
def readable(shared_folder: Path) -> Path:
    """A folder of the test's that the tasks of `shared_serve` may read."""
    folder = Path(tempfile.mkdtemp(dir=shared_folder))
    folder.chmod(0o755)
    return folder


@contextlib.contextmanager
def _apis(readable: Path) -> Iterator[Callable[..., WorkerServe]]:
    """Start APIs whose tasks may read a folder, and check that nothing of them is left."""
    readable.chmod(0o755)
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))  # short: sockets live below it
    apis: list[WorkerServe] = []

    def start(env: dict[str, str] | None = None) -> WorkerServe:
        own = {"WORKER_LOCAL_READABLE": str(readable)}
        api = WorkerServe(folder / str(len(apis)), own | (env or {}))
        apis.append(api)
        return api.start()

    yield start
    _end(folder, apis)


@pytest.fixture
def isolated_api(display_programs: None) -> Iterator[Callable[..., IsolatedApi]]:
    """Make APIs of root or of another user; nothing of them is left after the test."""
    if os.geteuid() != 0:
        skip_or_fail("root", "run the tests as root")
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))  # short: sockets live below it
    folder.chmod(0o755)
    apis: list[IsolatedApi] = []

    def make(env: dict[str, str] | None = None, *, as_user: bool = False) -> IsolatedApi:
        apis.append(IsolatedApi(folder / str(len(apis)), env, as_user=as_user))
        return apis[-1]

    yield make
    _end(folder, apis)


def _end(folder: Path, started: Sequence[WorkerRun | WorkerServe]) -> None:
    """End what a test has started in a folder, and check that nothing of it is left."""
    for each in started:
        each.end()
    left = [line for each in started for line in each.leftovers()]
    shutil.rmtree(folder)
    assert not left
