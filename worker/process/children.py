"""Child processes: each is reaped, and none is left at the end, orphans included.

The process becomes a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), so that orphans of the task or
of Chromium become children of this process instead of PID 1's.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final, TypeVar

from worker.linux import become_subreaper
from worker.process.spawn import spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_SWEEP_PAUSE_S: Final = 0.02

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Child:
    """A direct child in a session and process group of its own."""

    pid: int
    stdout: IO[bytes] | None
    _exit: asyncio.Future[int] = field(repr=False)

    async def wait(self) -> int:
        """Its exit code, or -N when signal N killed it."""
        return await asyncio.shield(self._exit)

    @property
    def running(self) -> bool:
        """Whether it has not been reaped yet."""
        return not self._exit.done()

    def signal_group(self, signal_number: int) -> None:
        """Send a signal to its whole process group; ignored when that has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal_number)

    async def stop(self, grace_s: float) -> None:
        """TERM to the group, a bounded wait, KILL; returns when the child is reaped."""
        if self.running:
            self.signal_group(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self.wait()
        self.signal_group(signal.SIGKILL)
        await self.wait()


class Children:
    """All children of this process. One per process, inside a running event loop."""

    def __init__(self) -> None:
        self._known: dict[int, Child] = {}
        become_subreaper()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        death_signal: int,
        output: Path | None = None,
        pass_fds: Sequence[int] = (),
        descriptor_limit: int | None = None,
    ) -> Child:
        """Start a program; see `spawn.spawn`."""
        return self.adopt(
            spawn(
                argv,
                env=env,
                death_signal=death_signal,
                output=output,
                pass_fds=pass_fds,
                descriptor_limit=descriptor_limit,
            )
        )

    def adopt(self, process: subprocess.Popen[bytes]) -> Child:
        """Manage a child that this process has started already."""
        # _reap waits for all children, so Popen must not. With a returncode its finalizer does not
        # look for the process.
        process.returncode = 0
        child = Child(process.pid, process.stdout, asyncio.get_running_loop().create_future())
        self._known[process.pid] = child
        self._reap()
        return child

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._known.pop(pid, None)
            if child is not None and not child._exit.done():  # noqa: SLF001 - the same module's
                child._exit.set_result(os.waitstatus_to_exitcode(status))  # noqa: SLF001

    async def sweep(self, *, spare: Sequence[int] = (), grace_s: float, limit_s: float) -> None:
        """End every process below this one: TERM, a bounded wait, KILL, until none is left.

        Args:
            spare: processes that stay, with all that is below them.
            grace_s: from TERM to KILL.
            limit_s: give up after this time (a process in uninterruptible sleep cannot die).
        """
        started = time.monotonic()
        asked: set[int] = set()
        while time.monotonic() - started < limit_s:
            self._reap()
            left = await in_thread(descendants, tuple(spare))
            if not left:
                return
            kill = time.monotonic() - started >= grace_s
            for pid in left:
                if kill or pid not in asked:
                    send_signal(pid, signal.SIGKILL if kill else signal.SIGTERM)
                    asked.add(pid)
            await asyncio.sleep(_SWEEP_PAUSE_S)


def preload_sweep() -> None:
    """Import what a sweep needs in a thread: 50 ms that neither start nor end must wait for."""
    threading.Thread(target=importlib.import_module, args=["psutil"], daemon=True).start()


def descendants(spare: Sequence[int] = ()) -> list[int]:
    """Process ids below this process, without zombies and the subtrees of `spare`."""
    import psutil  # noqa: PLC0415 - see preload_sweep

    spared = set(spare)
    for pid in spare:
        with contextlib.suppress(psutil.NoSuchProcess):
            spared.update(below.pid for below in psutil.Process(pid).children(recursive=True))
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid not in spared and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def send_signal(pid: int, signal_number: int) -> None:
    """Signal a process that may have ended; 0 stands for one that was never started.

    kill(2) takes 0 for the caller's whole process group, which includes the parent process.
    """
    if pid <= 0:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


async def exited(pid: int) -> None:
    """Return when a process, child or not, has ended (pidfd_open(2)); 0: at once."""
    if pid == 0:
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def in_thread(function: Callable[..., T], *args: object) -> T:
    """Run a blocking call in a daemon thread, so that one that hangs cannot delay the exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # T may be None

    def work() -> None:
        result, failure = None, None
        try:
            result = function(*args)
        except BaseException as error:  # raised where it is awaited
            failure = error
        try:
            loop.call_soon_threadsafe(deliver, result, failure)
        except RuntimeError:
            return  # the loop is closed, so nothing awaits the result

    threading.Thread(target=work, daemon=True).start()
    return await future
