"""Controls the measured tasks (`measured_task`) through a Unix socket that each connects to."""

from __future__ import annotations

import json
import socket
import tempfile
from pathlib import Path
from typing import Any, Self

PAGES = Path(__file__).parent / "pages"
SHOP = Path(__file__).resolve().parents[2] / "worker/examples/pages/shop.html"
ANIMATION = PAGES / "animation.html"
ANSWER_TIMEOUT_S = 60.0


class RemoteTask:
    """One running task. Times are those of time.monotonic(), which all processes share.

    Attributes:
        began_s: when its function was called.
        pid: its process.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(ANSWER_TIMEOUT_S)
        self._connection = connection
        self._lines = connection.makefile("rb")
        answer = self._read_answer()
        self.began_s: float = answer["began_s"]
        self.pid: int = answer["pid"]

    def show(self, page: Path) -> None:
        """Open a page and wait until it is drawn."""
        self._send(show=str(page))
        self._read_answer()

    def evaluate(self, script: str) -> Any:
        """Evaluate JavaScript in the page; return its value."""
        self._send(evaluate=script)
        return self._read_answer()["value"]

    def finish(self) -> float:
        """Let the task return; return the time when it did."""
        self._send()
        returned_s: float = self._read_answer()["returned_s"]
        self._connection.close()
        return returned_s

    def _send(self, **command: Any) -> None:
        self._connection.sendall(json.dumps(command).encode() + b"\n")

    def _read_answer(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise RuntimeError("the task ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer


class TaskListener:
    """The socket that tasks connect to; its `path` is their input `socket`."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.path = str(Path(self.folder.name) / "tasks")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen()
        self._listener.settimeout(ANSWER_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.folder.cleanup()

    def next_task(self) -> RemoteTask:
        """Wait for the next task that begins."""
        return RemoteTask(self._listener.accept()[0])
