"""The bench's end of the puppets: a Unix socket that each task connects to."""

from __future__ import annotations

import json
import socket
import tempfile
from pathlib import Path
from typing import Any, Self

PAGES = Path(__file__).parent / "pages"
SHOP = Path(__file__).resolve().parents[2] / "worker/examples/pages/shop.html"
ANIMATION = PAGES / "animation.html"
PATIENCE_S = 60.0


class Puppet:
    """One task that has begun; times are time.monotonic()'s, which all processes share."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        self._connection = connection
        self._lines = connection.makefile("rb")
        said = self._hear()
        self.began_s: float = said["began_s"]
        self.pid: int = said["pid"]

    def show(self, page: Path) -> None:
        """Go to a page, and wait until it is drawn."""
        self._say(show=str(page))
        self._hear()

    def evaluate(self, script: str) -> Any:
        """What a piece of JavaScript says."""
        self._say(evaluate=script)
        return self._hear()["value"]

    def finish(self) -> float:
        """Let the task return; the moment when it did."""
        self._say()
        returned_s: float = self._hear()["returned_s"]
        self._connection.close()
        return returned_s

    def _say(self, **order: Any) -> None:
        self._connection.sendall(json.dumps(order).encode() + b"\n")

    def _hear(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self._lines.readline() or b'{"began_s": -1, "pid": 0}')
        if said.get("pid") == 0:
            raise RuntimeError("a task ended without a word")
        return said


class Stage:
    """Where tasks connect to; its `path` is their input."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.path = str(Path(self.folder.name) / "stage")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen()
        self._listener.settimeout(PATIENCE_S)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the socket."""
        self._listener.close()
        self.folder.cleanup()

    def puppet(self) -> Puppet:
        """Wait for the next task that begins."""
        return Puppet(self._listener.accept()[0])
