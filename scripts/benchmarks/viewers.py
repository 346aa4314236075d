"""Viewers in a process of their own (`viewer_process`)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks import processes

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPTS = Path(__file__).parents[1]


class Viewers:
    """Connected viewers, each of which has received its first complete picture.

    Attributes:
        first_frames_s: for each URL, from connect to the first complete picture.
    """

    def __init__(
        self, urls: Sequence[str], *, spot: tuple[int, int] = (0, 0), skip_pixels: bool = False
    ) -> None:
        options = ["--spot", f"{spot[0]},{spot[1]}", *(["--skip-pixels"] if skip_pixels else [])]
        self._process = subprocess.Popen(
            processes.python("-m", "benchmarks.viewer_process", *options, *urls),
            env={"PYTHONPATH": f"{SCRIPTS}:{SCRIPTS.parent / 'tests'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first_frames_s: list[float] = self._read_answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def connect(self, url: str) -> float:
        """Add a viewer; return the time (time.monotonic) of its first complete picture."""
        moment_s: float = self.ask({"connect": url})
        return moment_s

    def ask(self, command: Any) -> Any:
        """Send `count`, `seen` or `closed` (see `viewer_process`) and return the answer."""
        assert self._process.stdin is not None  # noqa: S101 - for mypy: it is a pipe
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the viewers' process ended")
        return json.loads(line)
