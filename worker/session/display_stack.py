"""The display stack of one session: supervisord and its programs, started, kept up, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from worker.display import window_manager, xvfb
from worker.errors import SessionError, SessionLost, StartFailed
from worker.process import supervisord
from worker.process.children import exited, in_thread
from worker.process.supervisord_config import Program
from worker.session import prelaunch
from worker.vnc import shared_memory, x11vnc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from pathlib import Path

    from worker.events import Events
    from worker.process.children import Children
    from worker.process.supervisord import Supervisord
    from worker.session.prelaunch import Launched

CONTROL_PROGRAM: Final = "x11vnc_control"
RESTARTS_MAX: Final = 10
RESTART_WINDOW_S: Final = 30.0
RESTART_TIMEOUT_S: Final = 5.0
_LINE_BYTES: Final = 64


@dataclass(slots=True, kw_only=True)
class Stack:
    """supervisord with Xvfb, the window manager, x11vnc and websockify.

    Attributes:
        launched: supervisord, and the private folder for sockets, logs and the display's cookie.
        children: of this process.
        events: where starts and restarts are told.
        mark: notes that a stage of the start is over, by name.
        on_x11vnc: told whether x11vnc can be connected to, when that changes.
        on_x11vnc_blind: told when x11vnc will see no change for a while.
        lost: is set when a program that cannot be replaced dies.
        display: for example `:7`; empty until Xvfb is up.
        restarts: how often each program that may be restarted was.
    """

    launched: Launched
    children: Children
    events: Events
    mark: Callable[[str], None]
    on_x11vnc: Callable[[bool], None]
    on_x11vnc_blind: Callable[[], None]
    lost: asyncio.Future[SessionLost] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    display: str = ""
    restarts: dict[str, int] = field(default_factory=dict)
    _supervisord: Supervisord | None = None
    _pids: dict[str, int] = field(default_factory=dict)
    _watchers: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The session's private folder."""
        return self.launched.folder

    @property
    def authority(self) -> Path:
        """The file with the display's cookie."""
        return self.folder / prelaunch.AUTHORITY

    @property
    def x11vnc_socket(self) -> Path:
        """Where x11vnc listens."""
        return self.folder / "x11vnc.sock"

    @property
    def x11vnc_control_socket(self) -> Path:
        """Where the controller's x11vnc listens, while there is one."""
        return self.folder / "x11vnc_control.sock"

    @property
    def control_socket(self) -> Path:
        """Where the session listens for its stream servers."""
        return self.folder / prelaunch.CONTROL_SOCKET

    @property
    def supervisord(self) -> Supervisord:
        """The running supervisord.

        Raises:
            SessionLost: it does not run.
        """
        if self._supervisord is None:
            raise SessionLost("supervisord does not run")
        return self._supervisord

    @property
    def supervisord_pids(self) -> tuple[int, ...]:
        """The process id of supervisord: what a sweep of the rest spares."""
        return (self.launched.supervisord.pid,)

    @property
    def x11vnc_pid(self) -> int:
        """The process id of x11vnc; 0 before it was started."""
        return self._pids.get("x11vnc", 0)

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each program that was started, and of supervisord."""
        supervisord = self._supervisord
        own = {} if supervisord is None else {"supervisord": supervisord.process.pid}
        return {**own, **self._pids}

    # -- the start

    async def start_display(self) -> None:
        """Have supervisord start Xvfb and the stream server; returns when the display answers."""
        process = self.children.adopt(self.launched.supervisord)
        self._supervisord = await supervisord.start(self.folder, process, self.launched.programs)
        self._watch(process.wait(), self._on_part_lost("supervisord"))
        self.mark("supervisord")
        numbers = self.folder / prelaunch.XVFB_DISPLAY
        with _fifo(numbers) as descriptor:
            names = ("xvfb", "websockify")
            pids = await self.supervisord.start_together(*names)
            self._pids.update(zip(names, pids, strict=True))
            self._watch(exited(self._pids["xvfb"]), self._on_part_lost("xvfb"))
            number = await _first_line(descriptor, self._pids["xvfb"])
        if not number:
            said = await self.supervisord.last_words("xvfb")
            raise StartFailed("xvfb", "it reported no display", said)
        self.display = f":{number}"
        await in_thread(xvfb.check, self.display, self.authority)
        self.mark("xvfb")
        self.events.emit("xvfb.started", display=self.display)

    async def start_on_display(self) -> None:
        """Have supervisord start the window manager and x11vnc."""
        names = ("window_manager", "x11vnc")
        window_manager_program = Program(
            name="window_manager", command=window_manager.command(self.display), restart=True
        )
        x11vnc_program = Program(
            name="x11vnc",
            command=x11vnc.command(self.display, self.authority, self.x11vnc_socket),
            restart=True,
            stop_signal="KILL",  # it can deadlock in its TERM handler, and has nothing to save
        )
        pids = await self.supervisord.start_together(
            *names, add=[window_manager_program, x11vnc_program]
        )
        self._pids.update(zip(names, pids, strict=True))

    async def window_manager_ready(self) -> None:
        """Return when the window manager has announced itself."""
        ready = in_thread(window_manager.ready, self.display, self.authority)
        await self._ready("window_manager", ready)

    async def websockify_ready(self, listening: Coroutine[Any, Any, object]) -> None:
        """Return when the stream server accepts viewers, which is what `listening` waits for."""
        await self._ready("websockify", listening)

    async def x11vnc_ready(self) -> None:
        """Return when x11vnc accepts connections."""
        await self._ready("x11vnc", x11vnc.ready(self.x11vnc_socket))
        self._prime_x11vnc()
        self.on_x11vnc(True)

    async def start_control(self) -> int:
        """Start the controller's x11vnc; returns its process id when it accepts connections.

        Raises:
            StartFailed: it died before, or was not ready in time.
        """
        path = self.x11vnc_control_socket
        program = Program(
            name=CONTROL_PROGRAM,
            command=x11vnc.command(self.display, self.authority, path, control=True),
            restart=False,
        )
        add = [] if CONTROL_PROGRAM in self._pids else [program]
        (pid,) = await self.supervisord.start_together(CONTROL_PROGRAM, add=add)
        self._pids[CONTROL_PROGRAM] = pid
        await self._living(CONTROL_PROGRAM, x11vnc.ready(path))
        return pid

    async def _ready(self, name: str, ready: Coroutine[Any, Any, object]) -> None:
        """Wait until a program, which is restarted when it dies, has become ready."""
        pid = self._pids[name]
        await self._living(name, ready)
        self._watch(exited(pid), lambda: self._restart(name))
        self.restarts[name] = 0
        self.mark(name)
        self.events.emit(f"{name}.started")

    async def _living(self, name: str, ready: Coroutine[Any, Any, object]) -> None:
        """Wait until a program that was started has become ready.

        Raises:
            StartFailed: it died before, or was not ready in time.
        """
        waiting = asyncio.ensure_future(ready)
        try:
            if not await _before_death(waiting, self._pids[name]):
                said = await self.supervisord.last_words(name)
                raise StartFailed(name, "it ended", said)
        finally:
            waiting.cancel()

    def _prime_x11vnc(self) -> None:
        pid = self.x11vnc_pid

        def welcomed() -> None:
            # Its memory now, while it lives: nobody may be left to do it later.
            shared_memory.let_go(pid)
            self.on_x11vnc_blind()

        primed = x11vnc.prime(self.x11vnc_socket, welcomed=welcomed)
        self._watchers.append(asyncio.ensure_future(primed))

    # -- programs that die

    def _watch(
        self, death: Awaitable[object], on_death: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        async def watch() -> None:
            await death
            await on_death()

        self._watchers.append(asyncio.ensure_future(watch()))

    def _on_part_lost(self, name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def lose() -> None:
            said = await self.supervisord.last_words(name)
            self._lose(SessionLost(f"{name} died" + (f": {said}" if said else "")))

        return lose

    async def _restart(self, name: str) -> None:
        """See a program come back, each time that it dies; give up when it cannot stay."""
        deaths: list[float] = []
        while True:
            now = time.monotonic()
            deaths = [moment for moment in deaths if now - moment < RESTART_WINDOW_S] + [now]
            if len(deaths) > RESTARTS_MAX:
                said = await self.supervisord.last_words(name)
                self._lose(SessionLost(f"{name} died {len(deaths)} times in a row: {said}"))
                return
            self._tell(name, up=False)
            shared_memory.let_go(self._pids[name])  # what it had not let go of yet
            try:
                async with asyncio.timeout(RESTART_TIMEOUT_S):
                    self._pids[name] = await self.supervisord.replaced(name, self._pids[name])
                    if not await self._serves(name):
                        continue
            except (OSError, TimeoutError, SessionError) as error:
                why = str(error) or f"not within {RESTART_TIMEOUT_S:g} s"
                said = await self.supervisord.last_words(name)
                self._lose(SessionLost(f"{name} died and did not come back: {why}; {said}"))
                return
            self._tell(name, up=True)
            if name == "x11vnc":
                self._prime_x11vnc()
            self.restarts[name] += 1
            self.events.emit(f"{name}.restarted", restarts=len(deaths))
            await exited(self._pids[name])

    async def _serves(self, name: str) -> bool:
        """Whether a program that was just started becomes ready; False when it dies before."""
        if name != "x11vnc":
            return True
        ready = asyncio.ensure_future(x11vnc.ready(self.x11vnc_socket))
        try:
            return await _before_death(ready, self._pids[name])
        finally:
            ready.cancel()

    def _tell(self, name: str, *, up: bool) -> None:
        if name == "x11vnc":
            self.on_x11vnc(up)

    def _lose(self, error: SessionLost) -> None:
        if not self.lost.done():
            self.lost.set_result(error)

    # -- the end

    def unwatch(self) -> None:
        """Let programs end from now on without a word."""
        for watcher in self._watchers:
            watcher.cancel()

    async def stop(self, *names: str) -> None:
        """Stop programs side by side; those that never started are passed over."""
        if self._supervisord is None:
            return
        known = [name for name in names if name in self._pids]
        await asyncio.gather(*(self._supervisord.stop(name, self._pids[name]) for name in known))
        for name in known:
            shared_memory.let_go(self._pids[name])

    async def shut_down(self) -> None:
        """End supervisord itself; its programs are stopped already."""
        if self._supervisord is not None:
            await self._supervisord.shut_down()

    def remove_display_socket(self) -> None:
        """Remove the socket of an Xvfb that was killed."""
        if self.display:
            xvfb.remove_socket(self.display)


async def _before_death(ready: asyncio.Future[Any], pid: int) -> bool:
    """Wait until a program is ready, and raise what that raises; False when it dies before."""
    dead = asyncio.ensure_future(exited(pid))
    try:
        await asyncio.wait([ready, dead], return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
        return ready.done()
    finally:
        dead.cancel()


@contextlib.contextmanager
def _fifo(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _first_line(descriptor: int, writer_pid: int) -> str:
    """The first line that arrives on a pipe; empty when its writer dies before."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    text = b""
    loop.add_reader(descriptor, arrived.set)
    dead = asyncio.ensure_future(exited(writer_pid))
    try:
        while b"\n" not in text:
            waiting = asyncio.ensure_future(arrived.wait())
            await asyncio.wait([waiting, dead], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not arrived.is_set():
                return ""
            arrived.clear()
            with contextlib.suppress(BlockingIOError):
                text += os.read(descriptor, _LINE_BYTES)
    finally:
        loop.remove_reader(descriptor)
        dead.cancel()
    return text.split(b"\n")[0].decode()
