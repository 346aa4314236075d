"""The bench's end of a process of viewers (`watch`)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks import processes

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPTS = Path(__file__).parents[1]


class Audience:
    """Some viewers, each with its whole first picture."""

    def __init__(
        self, urls: Sequence[str], *, spot: tuple[int, int] = (0, 0), skip_pixels: bool = False
    ) -> None:
        options = ["--spot", f"{spot[0]},{spot[1]}", *(["--skip-pixels"] if skip_pixels else [])]
        self._process = subprocess.Popen(
            processes.python("-m", "benchmarks.watch", *options, *urls),
            env={"PYTHONPATH": f"{SCRIPTS}:{SCRIPTS.parent / 'tests'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first_frames_s: list[float] = self._hear()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the viewers go."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def connect(self, url: str) -> float:
        """Add a viewer; the moment when it had its first whole picture."""
        moment: float = self.ask({"connect": url})
        return moment

    def ask(self, order: Any) -> Any:
        """Ask for `count`, `seen` or `closed` (see `watch`)."""
        assert self._process.stdin is not None  # noqa: S101 - for mypy: it is a pipe
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the viewers' process ended")
        return json.loads(line)
