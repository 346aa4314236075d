"""The display stack of one session: Xvfb, the window manager, x11vnc and the stream server."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Final

from worker.display import display_number, liveness, window_manager, xvfb
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
    from worker.process.children import Child
    from worker.session.prelaunch import Prelaunched
    from worker.session.stream_status import StreamStatus

_WINDOW_MANAGER: Final = "window_manager"
_X11VNC: Final = "x11vnc"
_XVFB: Final = "xvfb"
_LOSS_TIMEOUT_S: Final = 3.0


class DisplayStack:
    """supervisord and its programs.

    Attributes:
        lost: is set when a program that cannot be replaced has ended.
        display: for example `:7`; empty until Xvfb is ready.
        authority: the file with the display's cookie.
        x11vnc: serves the viewers.
        supervisord: its process.
    """

    def __init__(
        self,
        *,
        prelaunched: Prelaunched,
        supervisord: Child,
        events: Events,
        status: StreamStatus,
        mark: Callable[[str], None],
        on_change: Callable[[], None],
        on_x11vnc: Callable[[], None],
    ) -> None:
        """Describe a display stack of which supervisord alone was started.

        Args:
            prelaunched: supervisord, and the private folder for sockets, logs and the cookie.
            supervisord: its process.
            events: the event log.
            status: gets the loss and the return of x11vnc and the stream server.
            mark: records that a stage of the start is over, by name.
            on_change: called when `pids` or `restarts` has changed.
            on_x11vnc: called when the state of `x11vnc` has changed.
        """
        self.lost: asyncio.Future[SessionLost] = asyncio.get_running_loop().create_future()
        self.display = ""
        self.authority = prelaunched.folder / prelaunch.AUTHORITY
        self.x11vnc = X11vnc(
            name=_X11VNC, unix_socket=prelaunched.folder / "x11vnc.sock", on_change=on_x11vnc
        )
        self.supervisord = supervisord
        self._prelaunched = prelaunched
        self._events = events
        self._status = status
        self._mark = mark
        self._on_change = on_change
        self._keeper: ProgramKeeper | None = None
        self._server_pid = 0
        self._window_manager: Program
        self._x11vnc: Program
        self._websockify: Program

    @property
    def folder(self) -> Path:
        """The session's private folder."""
        return self._prelaunched.folder

    @property
    def supervisord_pid(self) -> int:
        """The process id of supervisord."""
        return self.supervisord.pid

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

    async def start_display(
        self, listening: Callable[[], Awaitable[object]], expect: Callable[[int], None]
    ) -> None:
        """Start Xvfb and the stream server; returns when the display answers.

        Args:
            listening: returns when the stream server accepts viewers.
            expect: called with the process id of each stream server that was started.
        """
        prelaunched = self._prelaunched
        running = await supervisord.connect(
            prelaunched.supervisord.config,
            self.supervisord,
            (prelaunched.xvfb, prelaunched.websockify),
        )
        self._keeper = ProgramKeeper(
            supervisord=running,
            emit=self._events.emit,
            on_change=self._on_change,
            lost=self.lost,
            on_lost=self._on_lost,
            on_back=self._on_back,
        )
        self._mark("supervisord")
        self._websockify = dataclasses.replace(
            prelaunched.websockify, ready=listening, on_start=expect
        )
        with display_number.opened(self.folder / prelaunch.DISPLAY_NUMBER) as descriptor:

            async def ready() -> None:
                self.display = f":{await display_number.read(descriptor)}"
                await in_thread(xvfb.check, self.display, self.authority)
                self._server_pid = liveness.server_pid(self.display)

            server = dataclasses.replace(prelaunched.xvfb, ready=ready)
            await self.keeper.start(server, self._websockify)
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

    async def websockify_ready(self) -> None:
        """Return when the stream server accepts viewers."""
        await self._ready(self._websockify)

    async def _ready(self, program: Program) -> None:
        await self.keeper.ready(program)
        self.keeper.keep(program)
        self._mark(program.name)
        self._events.emit(f"{program.name}.started")

    def not_ready(self) -> str:
        """The programs that end again and again at the start, as a part of an error message."""
        ended = {} if self._keeper is None else self._keeper.ended_before_ready()
        return "".join(f"; {name} ended {count} times" for name, count in ended.items())

    # -- the run

    def _on_lost(self, name: str, why: str) -> None:
        if name != _WINDOW_MANAGER:
            self._status.lost(name, why)

    def _on_back(self, name: str) -> None:
        if name != _WINDOW_MANAGER:
            self._status.back(name)

    async def loss_reported(self) -> None:
        """If the display is lost, return when `lost` is set.

        The display's clients end with it, and their failure may be observed before its cause.
        """
        if self.display and not await liveness.answers(self.display, self._server_pid):
            await asyncio.wait([self.lost], timeout=_LOSS_TIMEOUT_S)

    async def display_lives(self) -> bool:
        """Whether Xvfb and supervisord run; False also while one of them is ending."""
        if self.lost.done() or not await liveness.answers(self.display, self._server_pid):
            return False
        return await self.supervisord_lives() and self.keeper.runs(_XVFB)

    async def supervisord_lives(self) -> bool:
        """Whether supervisord runs; False also while it is shutting down."""
        return not self.lost.done() and await self.keeper.supervisord.keeps_running()

    async def is_stream_server(self, pid: int) -> bool:
        """Whether supervisord reports this process as the stream server.

        Raises:
            SessionLost: it does not answer.
        """
        return await self.keeper.supervisord.pid(self._websockify.name) == pid

    def runs_stream_server(self, pid: int) -> bool:
        """Whether the stream server that was started last is this process, and has not ended."""
        name = self._websockify.name
        return self.keeper.pids.get(name) == pid and self.keeper.runs(name)

    # -- the end

    def unwatch(self) -> None:
        """Expect programs to end from now on."""
        if self._keeper is not None:
            self._keeper.unwatch()

    async def stop(self, *names: str) -> None:
        """Stop programs in parallel; those that were never started are ignored."""
        if self._keeper is not None:
            await self._keeper.stop(*names)
        if _X11VNC in names and not self.supervisord.running:
            await in_thread(self.x11vnc.end_unreported)

    async def shut_down(self) -> None:
        """End supervisord itself; its programs are stopped already."""
        if self._keeper is not None:
            await self._keeper.supervisord.shut_down()

    def remove_display_socket(self) -> None:
        """Remove the socket of an Xvfb that was killed."""
        if self.display:
            xvfb.remove_socket(self.display)
