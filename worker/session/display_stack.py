"""The display stack of one session: Xvfb, the window manager, x11vnc and the stream server."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Final

from worker.display import display_number, window_manager, xvfb
from worker.errors import SessionLost
from worker.process import supervisord
from worker.process.children import in_thread
from worker.process.keeper import ProgramKeeper
from worker.process.program import Program
from worker.session import prelaunch
from worker.vnc.x11vnc import X11vnc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from worker.events import Events
    from worker.process.children import Children
    from worker.session.prelaunch import Prelaunched

_WINDOW_MANAGER: Final = "window_manager"


class DisplayStack:
    """supervisord and its programs.

    Attributes:
        lost: is set when a program that cannot be replaced has ended.
        display: for example `:7`; empty until Xvfb is ready.
        authority: the file with the display's cookie.
        x11vnc: serves the viewers.
    """

    def __init__(
        self,
        *,
        prelaunched: Prelaunched,
        children: Children,
        events: Events,
        mark: Callable[[str], None],
        on_change: Callable[[], None],
        on_x11vnc: Callable[[], None],
    ) -> None:
        """Describe a display stack of which supervisord alone was started.

        Args:
            prelaunched: supervisord, and the private folder for sockets, logs and the cookie.
            children: of this process.
            events: the event log.
            mark: records that a stage of the start is over, by name.
            on_change: called when `pids` or `restarts` has changed.
            on_x11vnc: called when the state of `x11vnc` has changed.
        """
        self.lost: asyncio.Future[SessionLost] = asyncio.get_running_loop().create_future()
        self.display = ""
        self.authority = prelaunched.folder / prelaunch.AUTHORITY
        self.x11vnc = X11vnc(
            name="x11vnc", unix_socket=prelaunched.folder / "x11vnc.sock", on_change=on_x11vnc
        )
        self._prelaunched = prelaunched
        self._children = children
        self._events = events
        self._mark = mark
        self._on_change = on_change
        self._keeper: ProgramKeeper | None = None
        self._window_manager: Program
        self._x11vnc: Program

    @property
    def folder(self) -> Path:
        """The session's private folder."""
        return self._prelaunched.folder

    @property
    def supervisord_pid(self) -> int:
        """The process id of supervisord."""
        return self._prelaunched.supervisord.pid

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each program that was started, and of supervisord."""
        keeper = self._keeper
        return {} if keeper is None else {"supervisord": self.supervisord_pid, **keeper.pids}

    @property
    def restarts(self) -> dict[str, int]:
        """How often each program that may be restarted was."""
        return {} if self._keeper is None else dict(self._keeper.restarts)

    @property
    def keeper(self) -> ProgramKeeper:
        """Starts and stops programs.

        Raises:
            SessionLost: supervisord does not run.
        """
        if self._keeper is None:
            raise SessionLost("supervisord does not run")
        return self._keeper

    # -- the start

    async def start_display(self) -> None:
        """Start Xvfb and the stream server; returns when the display answers."""
        prelaunched = self._prelaunched
        running = await supervisord.connect(
            self.folder,
            self._children.adopt(prelaunched.supervisord),
            (prelaunched.xvfb, prelaunched.websockify),
        )
        self._keeper = ProgramKeeper(
            supervisord=running,
            emit=self._events.emit,
            on_change=self._on_change,
            lost=self.lost,
        )
        self._mark("supervisord")
        with display_number.opened(self.folder / prelaunch.DISPLAY_NUMBER) as descriptor:

            async def ready() -> None:
                self.display = f":{await display_number.read(descriptor)}"
                await in_thread(xvfb.check, self.display, self.authority)

            server = dataclasses.replace(prelaunched.xvfb, ready=ready)
            await self.keeper.start(server, prelaunched.websockify)
            await self.keeper.ready(server)
        self.keeper.keep(server)
        self._mark("xvfb")
        self._events.emit("xvfb.started", display=self.display)

    async def start_clients(self) -> None:
        """Start the window manager and x11vnc, without waiting until they are ready."""
        display, authority = self.display, self.authority
        self._window_manager = Program(
            name=_WINDOW_MANAGER,
            command=window_manager.command(display),
            restart=True,
            ready=lambda: in_thread(window_manager.ready, display, authority),
        )
        self._x11vnc = self.x11vnc.program(display, authority)
        await self.keeper.start(self._window_manager, self._x11vnc)

    async def window_manager_ready(self) -> None:
        """Return when the window manager has announced itself."""
        await self._ready(self._window_manager)

    async def x11vnc_ready(self) -> None:
        """Return when x11vnc accepts connections."""
        await self._ready(self._x11vnc)

    async def websockify_ready(self, listening: Callable[[], Awaitable[object]]) -> None:
        """Return when the stream server accepts viewers, which is when `listening` returns."""
        await self._ready(dataclasses.replace(self._prelaunched.websockify, ready=listening))

    async def _ready(self, program: Program) -> None:
        await self.keeper.ready(program)
        self.keeper.keep(program)
        self._mark(program.name)
        self._events.emit(f"{program.name}.started")

    # -- the end

    def unwatch(self) -> None:
        """Expect programs to end from now on."""
        if self._keeper is not None:
            self._keeper.unwatch()

    async def stop(self, *names: str) -> None:
        """Stop programs in parallel; those that were never started are ignored."""
        if self._keeper is not None:
            await self._keeper.stop(*names)

    async def shut_down(self) -> None:
        """End supervisord itself; its programs are stopped already."""
        if self._keeper is not None:
            await self._keeper.supervisord.shut_down()

    def remove_display_socket(self) -> None:
        """Remove the socket of an Xvfb that was killed."""
        if self.display:
            xvfb.remove_socket(self.display)
