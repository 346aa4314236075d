"""The signals that one x11vnc gets; a process that waits stands for x11vnc."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_run import is_stopped

from worker.vnc.x11vnc import X11vnc


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "600"]) as started:
        yield started
        started.kill()


@pytest.fixture
def x11vnc(tmp_path: Path) -> X11vnc:
    return X11vnc(name="x11vnc", unix_socket=tmp_path / "x11vnc.sock")


async def stopped(process: subprocess.Popen[bytes], *, is_so: bool) -> None:
    async with asyncio.timeout(10):
        while is_stopped(process.pid) != is_so:
            await asyncio.sleep(0.01)


async def test_it_is_suspended_when_idle_and_resumed_for_a_viewer(
    x11vnc: X11vnc, process: subprocess.Popen[bytes]
) -> None:
    program = x11vnc.program(":7", Path("Xauthority"))
    program.on_up(process.pid)
    await stopped(process, is_so=True)
    assert await x11vnc.acquire(1)
    await stopped(process, is_so=False)
    x11vnc.release(1)
    await stopped(process, is_so=True)
    program.on_down(process.pid)


async def test_the_end_of_the_stream_server_releases_every_viewer(
    x11vnc: X11vnc, process: subprocess.Popen[bytes]
) -> None:
    program = x11vnc.program(":7", Path("Xauthority"))
    program.on_up(process.pid)
    assert await x11vnc.acquire(1)
    assert await x11vnc.acquire(2)
    x11vnc.release_all()
    await stopped(process, is_so=True)
    program.on_down(process.pid)


async def test_a_viewer_is_not_accepted_while_it_is_down(
    x11vnc: X11vnc, process: subprocess.Popen[bytes]
) -> None:
    program = x11vnc.program(":7", Path("Xauthority"))
    assert not await x11vnc.acquire(1)
    program.on_up(process.pid)
    assert await x11vnc.acquire(1)
    program.on_down(process.pid)
    assert not await x11vnc.acquire(2)


async def test_its_changes_are_reported(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    changes: list[bool] = []
    server = X11vnc(
        name="x11vnc", unix_socket=tmp_path / "s", on_change=lambda: changes.append(server.up)
    )
    program = server.program(":7", Path("Xauthority"))
    program.on_up(process.pid)
    program.on_down(process.pid)
    program.on_down(process.pid)  # stopped after it had died
    assert changes == [True, False]
