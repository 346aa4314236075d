"""Reads the display number that Xvfb writes to its `-displayfd`, here a FIFO."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_READ_BYTES: Final = 64


@contextlib.contextmanager
def opened(fifo: Path) -> Iterator[int]:
    """Open the FIFO before Xvfb does, so that neither waits for the other; the descriptor."""
    descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def read(descriptor: int) -> str:
    """The first line that arrives, for example `7`: the server is ready as display `:7`."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    text = b""
    loop.add_reader(descriptor, arrived.set)
    try:
        while b"\n" not in text:
            await arrived.wait()
            arrived.clear()
            with contextlib.suppress(BlockingIOError):
                text += os.read(descriptor, _READ_BYTES)
    finally:
        loop.remove_reader(descriptor)
    return text.split(b"\n")[0].decode()
