"""A real display for the server under test: Xvfb with a changing picture, and two x11vncs."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from Xlib import X

from worker.display import connection, xvfb
from worker.vnc import shared_memory, x11vnc

if TYPE_CHECKING:
    from Xlib.display import Display

_START_S: Final = 20.0
_POLL_S: Final = 0.02
_DRAW_S: Final = 0.03
_DESCRIPTORS: Final = 1024  # x11vnc looks at each of them when a client connects
_END_S: Final = 10.0
_LOG_CHARS: Final = 3000
# glibc then aborts x11vnc where it writes past a block of memory, or frees one twice (mallopt(3)),
# and unused memory has no plausible content.
_HEAP_CHECKS: Final = (
    "LD_PRELOAD=libc_malloc_debug.so.0",
    "GLIBC_TUNABLES=glibc.malloc.check=3:glibc.malloc.perturb=165",
)


class RealDisplay:
    """Runs until closed; `findings` lists what x11vnc or Xvfb should not have done."""

    def __init__(self, folder: Path) -> None:
        """Start.

        Args:
            folder: for the x11vncs' sockets, `view.sock` and `control.sock`.
        """
        self.findings: list[str] = []
        self._folder = folder
        self._authority = folder / "Xauthority"
        xvfb.write_authority(self._authority)
        self._xvfb = subprocess.Popen(
            xvfb.command(self._authority), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._xvfb.stdout is not None  # noqa: S101 - it is a pipe
        self._name = ":" + self._xvfb.stdout.readline().decode().strip()
        self._servers = {role: self._start(role) for role in ("view", "control")}
        self._over = threading.Event()
        self._artist = threading.Thread(target=self._draw, daemon=True)
        self._artist.start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()
        self._artist.join()
        for process in (*self._servers.values(), self._xvfb):
            process.kill()
            process.wait(_END_S)
            shared_memory.mark_for_removal(process.pid)  # a killed x11vnc leaves it

    @property
    def rss_bytes(self) -> int:
        """The resident memory of both x11vncs."""
        pages = 0
        for process in self._servers.values():
            statm = Path(f"/proc/{process.pid}/statm").read_text().split()
            pages += int(statm[1]) - int(statm[2])  # without the display's shared memory
        return pages * resource.getpagesize()

    @property
    def log_tail(self) -> str:
        """The last lines that the x11vncs have logged."""
        texts = [path.read_bytes() for path in sorted(self._folder.glob("*.log"))]
        return " | ".join(text[-_LOG_CHARS:].decode(errors="replace") for text in texts)

    def _start(self, role: str) -> subprocess.Popen[bytes]:
        path = self._folder / f"{role}.sock"
        path.unlink(missing_ok=True)
        command = x11vnc.command(self._name, self._authority, path, control=role == "control")
        limit = ["prlimit", f"--nofile={_DESCRIPTORS}"]
        command = [word for word in command if word != "-quiet"]
        with (self._folder / f"{role}.log").open("ab") as log:
            process = subprocess.Popen(
                [*limit, "env", *_HEAP_CHECKS, *command], stdout=log, stderr=log
            )
        deadline = time.monotonic() + _START_S
        while not x11vnc.accepts(path) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return process

    def _watch(self) -> None:
        """Note the death of a program, and replace an x11vnc, so that the run can go on."""
        while not self._over.wait(_POLL_S):
            for role, process in self._servers.items():
                if process.poll() is not None:
                    self.findings.append(f"x11vnc ({role}) ended with {process.returncode}")
                    shared_memory.mark_for_removal(process.pid)
                    self._servers[role] = self._start(role)
            if self._xvfb.poll() is not None:
                self.findings.append(f"Xvfb ended with {self._xvfb.returncode}")
                return

    def _draw(self) -> None:
        """Change the picture all the time: plain areas, noise, text-like patterns, scrolling."""
        rng = random.Random(os.getpid())  # noqa: S311
        with connection.connect(self._name, self._authority) as display:
            canvas = _Canvas(display, rng)
            while not self._over.wait(_DRAW_S):
                canvas.draw()


class _Canvas:
    def __init__(self, display: Display, rng: random.Random) -> None:
        screen = display.screen()
        self._display, self._rng = display, rng
        self._width, self._height = screen.width_in_pixels, screen.height_in_pixels
        self._depth = screen.root_depth
        self._window = screen.root.create_window(
            0, 0, self._width, self._height, 0, self._depth, override_redirect=True
        )
        self._window.map()
        self._context = self._window.create_gc()

    def draw(self) -> None:
        rng = self._rng
        x, y = rng.randrange(self._width), rng.randrange(self._height)
        width, height = rng.choice((1, 16, 64, 640, 1920)), rng.choice((1, 16, 64, 360, 1080))
        match rng.randrange(4):
            case 0:
                self._context.change(foreground=rng.getrandbits(24))
                self._window.fill_rectangle(self._context, x, y, width, height)
            case 1:
                self._put(x, y, rng.randbytes(64 * 64 * 4))
            case 2:
                ink = rng.choices((b"\0\0\0\0", b"\xff\xff\xff\0"), (1, 4), k=64 * 64)
                self._put(x, y, b"".join(ink))
            case _:
                source = (0, rng.choice((-40, 1, 40)), self._width, self._height)
                self._window.copy_area(self._context, self._window, *source, 0, 0)
        self._display.screen().root.warp_pointer(x, y)
        self._display.sync()

    def _put(self, x: int, y: int, data: bytes) -> None:
        self._window.put_image(self._context, x, y, 64, 64, X.ZPixmap, self._depth, 0, data)
