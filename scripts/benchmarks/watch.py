"""A process of viewers: `python -m benchmarks.watch URL...` reads them until told to stop.

Orders come on stdin, answers go to stdout, both one JSON value a line. The measured times are
taken here, so that neither the bench nor its drawing disturbs them.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from typing import Any, cast

from rfb_client import Ended

from benchmarks.tight import TightViewer

WAIT_S = 20.0


class Watcher(threading.Thread):
    """One viewer, reading for ever; what it sees is counted."""

    def __init__(self, url: str, spot: tuple[int, int], *, decodes: bool) -> None:
        super().__init__(daemon=True)
        self.connect_began_s = time.monotonic()
        self.viewer = cast("TightViewer", TightViewer.connect(url))
        self.viewer.spot = spot
        self.viewer.start(decodes=decodes)
        self._await_whole_picture()
        self.first_frame_s = time.monotonic()
        self.updates = 0
        self.seen: list[tuple[float, tuple[int, int, int]]] = []
        self.closed: dict[str, Any] = {}

    def _await_whole_picture(self) -> None:
        left = self.viewer.width * self.viewer.height
        while left > 0:
            rects = self.viewer.next_update(WAIT_S)
            left -= sum(rect.width * rect.height for rect in rects if rect.encoding >= 0)

    def run(self) -> None:
        """Read until the stream ends."""
        try:
            while True:
                before, self.viewer.colour = self.viewer.colour, None
                self.viewer.next_update(WAIT_S * 60)
                self.updates += 1
                if self.viewer.colour is not None and self.viewer.colour != before:
                    self.seen.append((time.monotonic(), self.viewer.colour))
                self.viewer.colour = self.viewer.colour or before
        except Ended:
            closed = self.viewer.wait_closed(5)
            self.closed = {"code": closed.code, "reason": closed.reason}


def main() -> None:
    """Connect all viewers, then answer: `count`, `seen`, `closed`; stdin's end is the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--spot", default="0,0")
    parser.add_argument("--skip-pixels", action="store_true")
    parser.add_argument("urls", nargs="*")
    arguments = parser.parse_args()
    x, y = arguments.spot.split(",")
    watchers: list[Watcher] = []

    def connect(url: str) -> None:
        watchers.append(Watcher(url, (int(x), int(y)), decodes=not arguments.skip_pixels))
        watchers[-1].start()

    for url in arguments.urls:
        connect(url)
    say([watcher.first_frame_s - watcher.connect_began_s for watcher in watchers])
    for line in sys.stdin:
        match json.loads(line):
            case {"connect": url}:
                connect(url)
                say(watchers[-1].first_frame_s)
            case "count":
                say([time.monotonic(), [watcher.updates for watcher in watchers]])
            case "seen":
                say(watchers[0].seen)
            case "closed":
                for watcher in watchers:
                    watcher.join(WAIT_S)
                say([watcher.closed for watcher in watchers])


def say(value: Any) -> None:
    """Answer."""
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
