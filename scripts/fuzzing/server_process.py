"""Starts the stream server under test and observes it from outside."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from fuzzing.fake_display import HARMLESS, INPUT, FakeDisplay
from fuzzing.fake_session import FakeSession
from fuzzing.real_display import RealDisplay
from worker.stream import tokens
from worker.stream.messages import StreamConfig
from worker.stream.tokens import Role

if TYPE_CHECKING:
    from collections import Counter

TASK_ID: Final = "fuzz"
_TERM_TIMEOUT_S: Final = 10
_SETTLE_TIMEOUT_S: Final = 20
_STABLE_S: Final = 1.5
_POLL_S: Final = 0.1
_STDERR_MAX_CHARS: Final = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The resources that the stream server holds, and the memory of its x11vncs."""

    rss_bytes: int
    threads: int
    descriptors: int
    display_bytes: int = 0  # resident memory of the real x11vncs

    def __str__(self) -> str:
        rss = f"{self.rss_bytes / 2**20:.1f} MB"
        display = f", x11vnc {self.display_bytes / 2**20:.1f} MB" if self.display_bytes else ""
        return f"{rss}, {self.threads} threads, {self.descriptors} descriptors{display}"

    def exceeds(self, other: Size) -> bool:
        """Whether it has more threads or descriptors; memory is not compared."""
        return self.threads > other.threads or self.descriptors > other.descriptors


class ServerProcess:
    """A stream server in a process of its own, with a fake session and a fake or real display."""

    def __init__(self, *, real_display: bool = False) -> None:
        """Start it.

        Args:
            real_display: whether viewers get a real x11vnc; the reached lines are not counted then.
        """
        self.real_display: RealDisplay | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        folder = Path(self._folder.name)
        self._key = tokens.random_key()
        self._displays: list[FakeDisplay | RealDisplay]
        if real_display:
            self.real_display = RealDisplay(folder)
            self._displays = [self.real_display]
        else:
            self._displays = [
                FakeDisplay(folder / "view.sock", HARMLESS),
                FakeDisplay(folder / "control.sock", HARMLESS | INPUT),
            ]
        self._stderr = folder / "stderr"
        self._session = FakeSession()
        self._start(folder)

    def _start(self, folder: Path) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = listener.getsockname()[1]
        counter = os.memfd_create("counter")
        os.ftruncate(counter, 8)
        self._counter = mmap.mmap(counter, 8)
        descriptors = [self._session.server_end.fileno(), listener.fileno(), counter]
        module = [sys.executable, "-m", "fuzzing.traced_server"]
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [
                    *module,
                    json.dumps(asdict(self._config(folder))),
                    *map(str, descriptors),
                    *(["--trace"] if self.real_display is None else []),
                ],
                pass_fds=descriptors,
                stderr=stderr,
                stdout=stderr,
            )
        listener.close()
        os.close(counter)
        if not self._session.start(self.process.pid):
            raise RuntimeError(f"the stream server did not start: {self.stderr}")

    def _config(self, folder: Path) -> StreamConfig:
        return StreamConfig(
            task_id=TASK_ID,
            target="fuzz",
            started_at="2000-01-01T00:00:00Z",
            key_hex=self._key.hex(),
            x11vnc_socket=str(folder / "view.sock"),
            x11vnc_control_socket=str(folder / "control.sock"),
            max_viewers=1000,
            trusted_proxies=("127.0.0.1",),
            novnc_dir="/usr/share/novnc",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_TERM_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for display in self._displays:
            display.__exit__()
        self._session.close()
        self._folder.cleanup()

    @property
    def closes(self) -> Counter[int]:
        """Closed viewers by close code."""
        return self._session.closes

    @property
    def refusals(self) -> Counter[int]:
        """Refused requests by HTTP status."""
        return self._session.refusals

    def token(self, role: Role) -> str:
        return tokens.mint(self._key, TASK_ID, role)

    def url(self) -> str:
        """A stream URL with a fresh token."""
        return tokens.stream_url(f"ws://127.0.0.1:{self.port}", TASK_ID, self.token(Role.VIEW))

    @property
    def lines_reached(self) -> int:
        """The number of lines of worker.stream that have run so far."""
        (count,) = struct.unpack("Q", self._counter[:8])
        return int(count)

    @property
    def stderr(self) -> str:
        """What it wrote to stderr: nothing, unless it failed."""
        return self._stderr.read_text(errors="replace")

    def defect(self) -> str:
        """A description of what went wrong so far; empty if nothing did."""
        if self.process.poll() is not None:
            return f"it ended with {self.process.returncode}: {self.stderr}"
        if stderr := self.stderr.strip():
            return stderr[-_STDERR_MAX_CHARS:]
        failures = list(self._session.failures)
        if self.real_display is not None and self._session.lost:
            log = self.real_display.log_tail
            failures.append(f"x11vnc closed {self._session.lost} connections: {log}")
        return "; ".join([*failures, *(line for each in self._displays for line in each.findings)])

    def size(self) -> Size:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        values = dict(line.split(":", 1) for line in status.splitlines())
        return Size(
            rss_bytes=int(values["VmRSS"].split()[0]) * 1024,
            threads=int(values["Threads"]),
            descriptors=len(list(Path(f"/proc/{self.process.pid}/fd").iterdir())),
            display_bytes=0 if self.real_display is None else self.real_display.rss_bytes,
        )

    def settled(self, as_before: Size | None = None) -> Size:
        """Its size without connections.

        Waits until threads and descriptors are constant, and not above those of `as_before`.
        """
        deadline = time.monotonic() + _SETTLE_TIMEOUT_S
        size, since = self.size(), time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - since < _STABLE_S:
            time.sleep(_POLL_S)
            now = self.size()
            if as_before is not None and now.exceeds(as_before):
                since = time.monotonic()
            if (now.threads, now.descriptors) != (size.threads, size.descriptors):
                since = time.monotonic()
            size = now
        return size
