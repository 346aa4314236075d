"""Kinds of viewers, each running in a thread until the stream ends.

watcher = ActiveViewer(mouse_mover, Viewer.connect(url))
watcher.wait_ready(5)
... end the task ...
assert watcher.result(5) == Closed(1000, "task success")
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rfb_client import Closed, Ended, Lost, Refused, Viewer

SMALL_BUFFER_BYTES = 64 * 1024  # Viewer.connect's recv_buffer_bytes for `large_update`
_PATIENCE_S = 300  # a viewer waits as long as a test may take

Act = Callable[
    [Viewer, Callable[[], object]], None
]  # acts until Ended; calls the callback when ready


class ActiveViewer(threading.Thread):
    """A viewer that acts in a thread until the stream ends, and closes as a browser does.

    Attributes:
        viewer: not to be used by other threads while this one runs.
        closed: how its stream ended; None until then.
        error: what failed; None if nothing did.
        closed_s: when it ended, by time.monotonic().
    """

    def __init__(self, act: Act, viewer: Viewer) -> None:
        super().__init__(name=getattr(act, "__name__", repr(act)), daemon=True)
        self.viewer = viewer
        self.closed: Closed | None = None
        self.closed_s: float | None = None
        self.error: Exception | None = None
        self._act = act
        self._ready = threading.Event()
        self.start()

    def run(self) -> None:
        """Run in the thread."""
        try:
            with self.viewer:
                with contextlib.suppress(Ended):
                    self._act(self.viewer, self._ready.set)
                self.closed = self.viewer.wait_closed(_PATIENCE_S)
                self.closed_s = time.monotonic()
        except Exception as error:
            self.error = error
        finally:
            self._ready.set()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the viewer is in its characteristic state (see each function below).

        Raises:
            TimeoutError: it did not get there in time.
        """
        if not self._ready.wait(timeout_s):
            raise TimeoutError(f"{self.name} was not ready after {timeout_s} s")
        if self.error:
            raise self.error

    def result(self, timeout_s: float) -> Closed:
        """Wait until the stream has ended; return how, or raise what failed.

        Raises:
            TimeoutError: the stream did not end in time.
        """
        self.join(timeout_s)
        if self.error:
            raise self.error
        if self.closed is None:
            raise TimeoutError(f"{self.name} saw no end of the stream in {timeout_s} s")
        return self.closed


def idle(viewer: Viewer, ready: Callable[[], object]) -> None:
    """Get one frame, then only wait. Ready: the frame has arrived."""
    viewer.request_update(incremental=False)
    viewer.read_update(_PATIENCE_S)
    ready()
    viewer.wait_closed(_PATIENCE_S)


def mouse_mover(viewer: Viewer, ready: Callable[[], object], *, interval_s: float = 0.001) -> None:
    """Watch as noVNC does, moving the mouse. Ready: the first frame has arrived."""
    viewer.request_update(incremental=False)
    due_s = time.monotonic()
    for step in itertools.count():
        if not viewer.websocket.pending_bytes:
            viewer.pointer(step * 7 % viewer.width, step * 5 % viewer.height)
        due_s = max(due_s + interval_s, time.monotonic())
        with contextlib.suppress(TimeoutError):
            viewer.read_update(due_s - time.monotonic())
            viewer.request_update(incremental=True)
            ready()


def busy_updater(viewer: Viewer, ready: Callable[[], object], *, outstanding: int = 1) -> None:
    """Request whole frames without pause, `outstanding` at a time. Ready: one has arrived."""
    for _ in range(outstanding):
        viewer.request_update(incremental=False)
    while True:
        viewer.read_update(_PATIENCE_S)
        viewer.request_update(incremental=False)
        ready()


def large_update(viewer: Viewer, ready: Callable[[], object], *, rate_bytes_s: float = 4e6) -> None:
    """Read whole frames slowly, one after the other. Ready: a frame has begun to arrive.

    The viewer should be connected with `SMALL_BUFFER_BYTES`. At 4 MB/s 1920x1080 takes 2 s.
    """
    viewer.websocket.read_rate_bytes_s = rate_bytes_s
    while True:
        viewer.request_update(incremental=False)
        while True:
            with contextlib.suppress(TimeoutError):
                viewer.read_update(0.02)
                break
            if viewer.mid_update:
                ready()


def stalled(viewer: Viewer, ready: Callable[[], object], *, for_s: float) -> None:
    """Request frames, read nothing for `for_s`, then everything. Ready: the pause has begun."""
    for _ in range(8):
        viewer.request_update(incremental=False)
    viewer.websocket.flush(for_s)
    ready()
    time.sleep(for_s)
    viewer.wait_closed(_PATIENCE_S)


def trickler(
    viewer: Viewer, ready: Callable[[], object], *, interval_s: float = 1, framed: bool = True
) -> None:
    """Send pointer events a byte at a time. Ready: the first byte is out.

    Args:
        viewer: the viewer.
        ready: called when ready.
        interval_s: between two bytes.
        framed: each byte is a WebSocket message; otherwise even the frames come byte by byte, and a
            Close from the server leaves one unfinished, so that the answer cannot be understood.
    """
    event = struct.pack(">BBHH", 5, 0, 1, 1)
    unmasked = bytes([0x82, 0x80 | len(event)]) + bytes(4) + event  # a mask of zeros
    for byte in itertools.cycle(event if framed else unmasked):
        (viewer.raw if framed else viewer.websocket.send_tcp)(bytes([byte]))
        ready()
        with contextlib.suppress(TimeoutError):
            viewer.read_update(interval_s)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to connect, and its result.

    Attributes:
        outcome: how it ended; Lost also stands for a refused TCP connection.
        left: it was connected and undisturbed for its time, so it closed the stream itself.
        started_s, ended_s: by time.monotonic().
    """

    outcome: Closed | Refused | Lost
    left: bool
    started_s: float
    ended_s: float


class ReconnectingViewer(threading.Thread):
    """Connects, stays for a moment, leaves, and repeats, until it is refused (or lost).

    Attributes:
        attempts: in order; only the last one can be Refused or Lost.
        error: what failed; None if nothing did.
    """

    def __init__(self, new_url: Callable[[], str], *, stay_s: float = 0.02) -> None:
        super().__init__(name="reconnecting viewer", daemon=True)
        self.attempts: list[Attempt] = []
        self.error: Exception | None = None
        self._new_url = new_url
        self._stay_s = stay_s
        self._admitted = threading.Event()
        self._given_up = threading.Event()
        self.start()

    def run(self) -> None:
        """Run in the thread."""
        try:
            while not self._given_up.is_set():
                started_s = time.monotonic()
                outcome, left = self._try_once()
                self.attempts.append(Attempt(outcome, left, started_s, time.monotonic()))
                if not isinstance(outcome, Closed):
                    return
        except Exception as error:
            self.error = error
        finally:
            self._admitted.set()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until it has been admitted once.

        Raises:
            TimeoutError: it was not in time.
        """
        if not self._admitted.wait(timeout_s):
            raise TimeoutError(f"{self.name} was not admitted in {timeout_s} s")
        if self.error:
            raise self.error

    def result(self, timeout_s: float) -> list[Attempt]:
        """Wait until it is refused; return all attempts, or raise what failed.

        Raises:
            TimeoutError: it was not refused in time; it stops connecting.
        """
        self.join(timeout_s)
        if self.error:
            raise self.error
        if self.is_alive():
            self._given_up.set()
            raise TimeoutError(f"{self.name} was not refused in {timeout_s} s")
        return self.attempts

    def _try_once(self) -> tuple[Closed | Refused | Lost, bool]:
        try:
            viewer = Viewer.connect(self._new_url())
        except (Refused, Lost) as error:
            return error, False
        except Ended as ended:
            return ended.closed, False
        self._admitted.set()
        with viewer:
            try:
                return viewer.wait_closed(self._stay_s), False
            except TimeoutError:
                left = viewer.websocket.closed is None
                return viewer.close(), left
