"""A process whose stdout is a worker's events, read while it runs."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0


class EventProcess:
    """Its events, its exit code, and its stderr (in a file, because a full pipe would block)."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stderr: Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._stderr = stderr
        with stderr.open("wb") as file:
            self.process = subprocess.Popen(
                argv,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()
        self.process.stdout.close()
        with self._changed:
            self._changed.notify_all()

    def event(self, name: str, *, timeout_s: float = PATIENCE_S, count: int = 1) -> dict[str, Any]:
        """Wait for the `count`th event of this name."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = [event for event in self.events if event["event"] == name]
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    raise AssertionError(f"no {name}; events: {self.events}; {self.stderr}")
                self._changed.wait(min(left, 1))

    def wait(self, *, timeout_s: float = PATIENCE_S) -> int:
        """Wait until it ends; return its exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code

    @property
    def stderr(self) -> str:
        """Its stderr so far."""
        return self._stderr.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Signal the process."""
        self.process.send_signal(number)

    def end(self, *, grace_s: float = 15) -> None:
        """Stop it: TERM, a wait of at most `grace_s`, KILL."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)
