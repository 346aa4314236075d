"""Starts the process under attack, and looks at it from outside."""

from __future__ import annotations

import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from fuzzing.display import HARMLESS, INPUT, Display
from worker.stream import messages, tokens
from worker.stream.messages import StreamConfig
from worker.stream.tokens import Role
from worker.wire import encode

TASK_ID: Final = "fuzz"
_SPLIT: Final = "x11vnc_control_socket" in {field.name for field in fields(StreamConfig)}
_TERM_S: Final = 10
_SETTLE_S: Final = 20
_STILL_S: Final = 1.5
_POLL_S: Final = 0.1
_SAID_MAX_CHARS: Final = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a process holds."""

    rss_bytes: int
    threads: int
    descriptors: int

    def __str__(self) -> str:
        """Return it for people."""
        rss = f"{self.rss_bytes / 2**20:.1f} MB"
        return f"{rss}, {self.threads} threads, {self.descriptors} descriptors"


def _left_over(before: Size, after: Size) -> bool:
    return after.threads > before.threads or after.descriptors > before.descriptors


class Target:
    """A stream server in a process of its own, with fake displays behind it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        folder = Path(self._folder.name)
        self._key = tokens.random_key()
        self._displays = [
            Display(folder / "view.sock", HARMLESS if _SPLIT else HARMLESS | INPUT),
            Display(folder / "control.sock", HARMLESS | INPUT),
        ]
        self._stderr = folder / "stderr"
        self.closes: Counter[int] = Counter()
        self.refusals: Counter[int] = Counter()
        self.failures: list[str] = []
        self._start(folder)

    def _start(self, folder: Path) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = listener.getsockname()[1]
        self._channel, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        counter = os.memfd_create("counter")
        os.ftruncate(counter, 8)
        self._counter = mmap.mmap(counter, 8)
        numbers = [channel.fileno(), listener.fileno(), counter]
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fuzzing.target", self._config(folder), *map(str, numbers)],
                pass_fds=numbers,
                stderr=stderr,
                stdout=stderr,
            )
        for closing in (listener, channel):
            closing.close()
        os.close(counter)
        ready = threading.Event()
        threading.Thread(target=self._hear, args=(ready,), daemon=True).start()
        if not ready.wait(30):
            raise RuntimeError(f"the stream server did not start: {self.said}")

    def _config(self, folder: Path) -> str:
        values: dict[str, Any] = {
            "task_id": TASK_ID,
            "target": "fuzz",
            "started_at": "2000-01-01T00:00:00Z",
            "key_hex": self._key.hex(),
            "x11vnc_socket": str(folder / "view.sock"),
            "x11vnc_control_socket": str(folder / "control.sock"),
            "max_viewers": 1000,
            "trusted_proxies": ["127.0.0.1"],
            "novnc_dir": "/usr/share/novnc",
        }
        known = {field.name for field in fields(StreamConfig)}
        return json.dumps({name: value for name, value in values.items() if name in known})

    def _hear(self, ready: threading.Event) -> None:
        """Act as the session: answer requests, and keep the events."""
        while packet := self._channel.recv(messages.PACKET_MAX_BYTES):
            match messages.FROM_STREAM_SERVER.decode(packet):
                case messages.Listening():
                    facts = messages.Facts(stages_ms={}, restarts={}, pids={"x": self.process.pid})
                    self._channel.send(encode(facts))
                    ready.set()
                case messages.DisplayRequested(viewer=viewer):
                    self._channel.send(encode(messages.DisplayReady(viewer=viewer, up=True)))
                case messages.Event(name=name, fields=fields):
                    self._note(name, fields)

    def _note(self, name: str, said: dict[str, Any]) -> None:
        if name == "viewer.closed":
            self.closes[said["code"]] += 1
        elif name == "viewer.refused":
            self.refusals[said["status"]] += 1
        elif name.endswith(".failed"):
            self.failures.append(f"{name} {said}")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_TERM_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for display in self._displays:
            display.__exit__()
        self._channel.close()
        self._folder.cleanup()

    def token(self, role: Role) -> str:
        """A fresh token."""
        return tokens.mint(self._key, TASK_ID, role)

    def url(self) -> str:
        """A fresh address for a viewer."""
        return tokens.stream_url(f"ws://127.0.0.1:{self.port}", TASK_ID, self.token(Role.VIEW))

    @property
    def lines_reached(self) -> int:
        """How many lines of worker.stream have run so far."""
        (count,) = struct.unpack("Q", self._counter[:8])
        return int(count)

    @property
    def said(self) -> str:
        """What it wrote on stderr: nothing, unless it broke."""
        return self._stderr.read_text(errors="replace")

    def wrong(self) -> str:
        """What it did wrong so far; empty when nothing."""
        if self.process.poll() is not None:
            return f"it ended with {self.process.returncode}: {self.said}"
        if said := self.said.strip():
            return said[-_SAID_MAX_CHARS:]
        found = [*self.failures, *(line for each in self._displays for line in each.findings)]
        return "; ".join(found)

    def size(self) -> Size:
        """What it holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        values = dict(line.split(":", 1) for line in status.splitlines())
        return Size(
            rss_bytes=int(values["VmRSS"].split()[0]) * 1024,
            threads=int(values["Threads"]),
            descriptors=len(list(Path(f"/proc/{self.process.pid}/fd").iterdir())),
        )

    def settled(self, as_before: Size | None = None) -> Size:
        """What it holds when nobody is connected.

        It waits until threads and descriptors stay what they are, or are what they were before.
        """
        deadline = time.monotonic() + _SETTLE_S
        size, since = self.size(), time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - since < _STILL_S:
            time.sleep(_POLL_S)
            now = self.size()
            if as_before is not None and _left_over(as_before, now):
                since = time.monotonic()
            if (now.threads, now.descriptors) != (size.threads, size.descriptors):
                since = time.monotonic()
            size = now
        return size
