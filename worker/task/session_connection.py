"""The task's process's connection to the session."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final, TypeVar

from worker.task.messages import (
    DisplayReady,
    Go,
    Quit,
    Raised,
    Ready,
    Returned,
    Started,
    ToTask,
)
from worker.wire import Decoder, encode

if TYPE_CHECKING:
    from worker.task.messages import FromTask

_DECODER: Final[Decoder[ToTask]] = Decoder(ToTask)

M = TypeVar("M")


class SessionConnection:
    """Sends and receives messages, and keeps track of how far the session is.

    The session's end of the connection, or its Quit, ends this process with SystemExit in every
    method that waits for another message.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # else the browser would keep the connection open
        self._socket = socket.socket(fileno=descriptor)
        self._lines = self._socket.makefile("rb")
        self._display_is_ready = False
        self._may_start = False
        self._started = self._ended = False

    @property
    def task_is_running(self) -> bool:
        """Whether the task's code has started, and its end has not been sent."""
        return self._started and not self._ended

    def send(self, message: FromTask) -> None:
        """Send a message; blocks while the session does not read.

        Raises:
            ValueError: a field holds a value that JSON cannot represent.
        """
        line = encode(message) + b"\n"
        self._ended = self._ended or isinstance(message, Returned | Raised)
        self._socket.sendall(line)

    def receive(self, expected: type[M]) -> M:
        """Wait for a message of this type."""
        line = self._lines.readline()
        message = _DECODER.decode(line) if line else Quit()
        if not isinstance(message, expected):
            raise SystemExit(0)
        return message

    def wait_for_display(self) -> None:
        """Wait until there is a display, and point the environment to it; at once if it was."""
        if self._display_is_ready:
            return
        message = self.receive(DisplayReady)
        os.environ["DISPLAY"] = message.display
        os.environ["XAUTHORITY"] = message.xauthority
        self._display_is_ready = True

    def wait_for_go(self) -> None:
        """Report that all is loaded and wait for the stream; returns at once the second time."""
        if self._may_start:
            return
        self.send(Ready())
        self.receive(Go)
        self._may_start = True

    def report_started(self) -> None:
        """Report, once, that SIGTERM stops the task."""
        if not self._started:
            self.send(Started())
        self._started = True

    async def wait_for_quit(self) -> None:
        """Wait for Quit, which must be the next message, while the event loop runs."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._socket, readable.set)
        await readable.wait()
        loop.remove_reader(self._socket)

    def quit_is_pending(self) -> bool:
        """Whether Quit, which must be the next message, has arrived."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        finally:
            self._socket.setblocking(True)
        return True
