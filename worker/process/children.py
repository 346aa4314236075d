"""Child processes: each is reaped, and none is left at the end, orphans included.

The process becomes a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), so that orphans of the task or
of Chromium become children of this process instead of PID 1's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

from worker.linux import become_subreaper, command_name
from worker.process.spawn import spawn
from worker.process.sweep import Sweep

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from worker.process.task_cgroup import TaskCgroup

LEFT_MAX: Final = 20
_REAPED_LIMIT_S: Final = 1.0

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
        """Send a signal to its whole process group, unless the child is reaped.

        Then its process id, and so the group's, may belong to another process.
        """
        if self.running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal_number)

    async def stop(self, grace_s: float) -> None:
        """TERM to the group, a bounded wait, KILL; returns when the child is reaped.

        A child that SIGKILL does not end (uninterruptible sleep, another user) is left after 1 s.
        """
        self.signal_group(signal.SIGTERM)
        for limit_s in (grace_s, _REAPED_LIMIT_S):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self.wait()
                    return
            self.signal_group(signal.SIGKILL)


class Children:
    """All children of this process. One per process, inside a running event loop.

    Attributes:
        cgroup: holds the task's processes; None where none can be created.
    """

    def __init__(self, started: Iterable[subprocess.Popen[bytes]] = ()) -> None:
        """Reap from now on.

        Args:
            started: children that run already and will be adopted: their ends must not be missed.
        """
        self.cgroup: TaskCgroup | None = None
        self._known: dict[int, Child] = {}
        self._orphan_ended_at = 0.0
        become_subreaper()
        self._started = {process.pid: self._know(process) for process in started}
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        # More children may end than the loop is notified of; one notification is enough.
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        self._reap()

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
        child = self._started.pop(process.pid, None) or self._know(process)
        self._reap()
        return child

    def _know(self, process: subprocess.Popen[bytes]) -> Child:
        # _reap waits for all children, so Popen must not. With a returncode its finalizer does not
        # look for the process.
        process.returncode = 0
        child = Child(process.pid, process.stdout, asyncio.get_running_loop().create_future())
        self._known[process.pid] = child
        return child

    def _reap(self) -> bool:
        """Reap the children that have ended; True if there is no other child."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            child = self._known.pop(pid, None)
            if child is None:
                self._orphan_ended_at = time.monotonic()
            elif not child._exit.done():  # noqa: SLF001 - the same module's
                child._exit.set_result(os.waitstatus_to_exitcode(status))  # noqa: SLF001

    async def sweep(self, *, spare: Sequence[int] = (), grace_s: float, limit_s: float) -> None:
        """End every process below this one: see `worker.process.sweep`.

        Args:
            spare: processes that stay, with all that is below them.
            grace_s: from TERM to KILL.
            limit_s: give up after this time (a process in uninterruptible sleep cannot die).
        """
        await self._sweep(spare).run(grace_s=grace_s, limit_s=limit_s)

    def left(self) -> list[dict[str, Any]]:
        """The processes that still exist below this one, at most LEFT_MAX: pid and command."""
        pids = self._sweep(()).left()[:LEFT_MAX]
        return [{"pid": pid, "command": command_name(pid)} for pid in pids]

    def _sweep(self, spare: Sequence[int]) -> Sweep:
        return Sweep(
            reap=self._reap,
            orphan_ended_at=lambda: self._orphan_ended_at,
            spare=frozenset(spare),
            kill_group=self._kill_group,
        )

    def _kill_group(self) -> None:
        if self.cgroup is not None:
            self.cgroup.kill()


def send_signal(pid: int, signal_number: int) -> None:
    """Signal a process that may have ended, or changed its user; 0: one that was never started.

    kill(2) takes 0 for the caller's whole process group, which includes the parent process.
    """
    if pid <= 0:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
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
