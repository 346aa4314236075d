"""x11vnc: reads the display and serves RFB on a Unix socket; it has no TCP port.

One class owns the process's whole life: its command line, readiness, priming, idle suspend and end.

Priming: without any client x11vnc looks for new ones five times a second, and for half a second
after its first one it does not detect changes. So the first viewer would wait, and then see no
change for half a second. A priming client connects as soon as x11vnc is ready, and stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Final

from worker import linux
from worker.errors import StartFailed
from worker.process.program import Program
from worker.rfb.client_filter import PROTOCOL_VERSION
from worker.vnc import shared_memory
from worker.vnc.idle_suspend import SETTLE_S, IdleSuspend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READY_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.005
_SCREEN_POLL_MS: Final = 5
_READ_TIMEOUT_S: Final = 24 * 3600
_UPDATE_DELAY_MS: Final = 0  # 1 costs a whole further turn of its loop

# The priming client's handshake (RFC 6143, section 7.1).
_SECURITY_TYPES_BYTES: Final = 2
_SECURITY_NONE: Final = b"\x01"
_SECURITY_RESULT_BYTES: Final = 4
_SHARED: Final = b"\x01"
_SERVER_INIT_BYTES: Final = 24  # without the name, whose length is its last field
_LENGTH_BYTES: Final = 4
_READ_BYTES: Final = 65536
CONNECTS_MAX: Final = 20


class X11vnc:
    """One x11vnc. Used inside a running event loop.

    Attributes:
        name: the program's name in supervisord, events and metrics.
        unix_socket: where it listens.
        up: whether it accepts connections.
        settled: whether a viewer may connect at once, while `acquire` is under way.
        reported: is set when it has sent its priming client anything, such as copied text.
    """

    def __init__(
        self,
        *,
        name: str,
        unix_socket: Path,
        control: bool = False,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Describe an x11vnc that is not started yet.

        Args:
            name: see above.
            unix_socket: see above.
            control: whether its clients may type, point, paste, and receive copied text. It is not
                suspended while idle then: it runs only while it is needed.
            on_change: called when `up` or `settled` has changed.
        """
        self.name = name
        self.unix_socket = unix_socket
        self.up = self.settled = False
        self.reported = asyncio.Event()
        self._control = control
        self._on_change = on_change
        self._idle = IdleSuspend()
        self._timer: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._priming: asyncio.Task[None] | None = None
        self._process = -1  # a pidfd: a process id could be another process's by now
        self._suspended = False

    def program(self, display: str, authority: Path) -> Program:
        """The program for supervisord.

        Args:
            display: for example `:7`.
            authority: the display's cookie file.
        """
        return Program(
            name=self.name,
            command=command(display, authority, self.unix_socket, control=self._control),
            restart=not self._control,
            stop_signal="KILL",  # it can deadlock in its TERM handler, and has nothing to save
            ready=self._ready,
            on_up=self._on_up,
            on_down=self._on_down,
        )

    async def acquire(self, viewer: int) -> bool:
        """Resume it for a viewer; returns when the viewer may connect, False if it is not up.

        Args:
            viewer: a number; the same for `release`.
        """
        if not self.up:
            return False
        wait_s = self._idle.acquire(viewer, time.monotonic())
        self._apply()
        if wait_s:
            await asyncio.sleep(wait_s)
        return self.up

    def release(self, viewer: int) -> None:
        """The viewer has disconnected, or will not connect."""
        self._idle.release(viewer, time.monotonic())
        self._apply()

    def release_all(self) -> None:
        """Every viewer has disconnected, since the stream server has ended."""
        self._idle.release_all(time.monotonic())
        self._apply()

    def end_unreported(self) -> None:
        """Kill one whose process id is not known: supervisord died while it started it."""
        for pid in linux.pids_with_arguments("-unixsock", str(self.unix_socket)):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            shared_memory.mark_for_removal(pid)

    async def _ready(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_TIMEOUT_S
        while not accepts(self.unix_socket):
            if loop.time() > deadline:
                raise StartFailed(self.name, f"it did not listen on {self.unix_socket} in time")
            await asyncio.sleep(_POLL_S)

    # -- start and end of its process

    def _on_up(self, pid: int) -> None:
        with contextlib.suppress(OSError):  # it has just ended: _on_down follows
            self._process = os.pidfd_open(pid)
        self.up, self._suspended = True, False
        self._idle.started(time.monotonic())
        self._priming = asyncio.ensure_future(self._prime(pid))
        self._apply()
        self._on_change()

    def _on_down(self, pid: int) -> None:
        was_up, self.up, self.settled = self.up, False, False
        for timer in (self._timer, self._settling):
            if timer is not None:
                timer.cancel()
        if self._priming is not None:
            self._priming.cancel()
        if self._process >= 0:
            os.close(self._process)
            self._process = -1
        shared_memory.mark_for_removal(pid)
        if was_up:
            self._on_change()

    async def _prime(self, pid: int) -> None:
        with contextlib.suppress(OSError, EOFError):  # x11vnc has ended; the next one is primed
            reader, writer = await _connected(self.unix_socket)
            try:
                # While it lives: after the worker's own death nothing could do it.
                shared_memory.mark_for_removal(pid)
                self._idle.primed(time.monotonic())
                self._apply()
                self._settling = asyncio.get_running_loop().call_later(SETTLE_S, self._settle)
                while await reader.read(_READ_BYTES):  # it requests nothing, so little arrives
                    self.reported.set()
            finally:
                writer.close()

    def _settle(self) -> None:
        self.settled = True
        self._on_change()

    # -- idle suspend

    def _apply(self) -> None:
        """Send the signal that is due, and set the timer for the next one."""
        if self._control or not self.up:
            return
        now = time.monotonic()
        change_at = self._idle.tick(now)
        if self._idle.suspended != self._suspended:
            self._suspended = self._idle.suspended
            self._send(signal.SIGSTOP if self._suspended else signal.SIGCONT)
        if self._timer is not None:
            self._timer.cancel()
        if change_at is not None:
            delay_s = max(0.0, change_at - now)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._apply)

    def _send(self, signal_number: signal.Signals) -> None:
        if self._process >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._process, signal_number)


async def _connected(unix_socket: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, and go through the handshake.

    Several times if necessary: accept(2) fails in x11vnc at times (`accept_unix` in its inet.c does
    not set the length of the address), and the connection is closed.

    Raises:
        OSError, EOFError: x11vnc has ended.
    """
    for left in reversed(range(CONNECTS_MAX)):
        reader, writer = await asyncio.open_unix_connection(str(unix_socket))
        try:
            await _handshake(reader, writer)
        except (OSError, EOFError):
            writer.close()
            if not left:
                raise
        except BaseException:
            writer.close()
            raise
        else:
            break
    return reader, writer


async def _handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(PROTOCOL_VERSION)
    await reader.readexactly(len(PROTOCOL_VERSION) + _SECURITY_TYPES_BYTES)
    writer.write(_SECURITY_NONE)
    await reader.readexactly(_SECURITY_RESULT_BYTES)
    writer.write(_SHARED)
    init = await reader.readexactly(_SERVER_INIT_BYTES)
    await reader.readexactly(int.from_bytes(init[-_LENGTH_BYTES:], "big"))


def command(
    display: str, authority: Path, unix_socket: Path, *, control: bool = False
) -> list[str]:
    """The command line.

    Args:
        display: for example `:7`.
        authority: the display's cookie file.
        unix_socket: where it listens.
        control: whether its clients may type, point, paste, and receive copied text.
    """
    # Copied text is the clipboard's; text that is only selected is not shared.
    role = ["-noprimary"] if control else ["-viewonly", "-nosel"]
    return [
        # It refuses clipboard text in its first seconds otherwise, in case of a login window.
        *(("env", "X11VNC_AVOID_WINDOWS=never") if control else ()),
        "x11vnc",
        *("-display", display),
        *("-auth", str(authority)),
        # Both ports 0 and no -localhost: otherwise it listens on [::]:5900, or refuses clients of
        # its own Unix socket.
        *("-rfbport", "0", "-rfbportv6", "0", "-unixsock", str(unix_socket)),
        *role,
        *("-shared", "-forever", "-nopw"),  # the stream server decides who may connect
        *("-norc", "-nocmds", "-noremote"),  # no ~/.x11vncrc, no commands, no remote control
        # Its own measurement of the link's speed freezes the first viewer for seconds.
        *("-speeds", "lan"),
        *("-wait", str(_SCREEN_POLL_MS), "-defer", str(_UPDATE_DELAY_MS)),
        # It would disconnect a client that does not read for 20 s. Its only clients are the stream
        # server and the session, which may be suspended for longer, and judge viewers themselves.
        *("-readtimeout", str(_READ_TIMEOUT_S)),
        *("-nodpms", "-nobell"),
        # Repeated requests to the X server that are not needed: the screen's size never changes.
        *("-noxrandr", "-noxinerama", "-nofbpm", "-noxrecord"),
        # On a still picture it would nap, and show the next change up to a second late.
        *("-nonap", "-sb", "0"),
        "-quiet",
    ]


def accepts(unix_socket: Path) -> bool:
    """Whether a connection is accepted now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(unix_socket))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True
