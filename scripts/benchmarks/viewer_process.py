"""A process with viewers: `python -m benchmarks.viewer_process URL...`, until it is killed.

Commands arrive on stdin and answers go to stdout, one JSON value per line. Times are measured in
this process, so that the work of the benchmark itself does not delay them.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from typing import Any, cast

from rfb_client import Ended

from benchmarks.tight_viewer import TightViewer

TIMEOUT_S = 20.0


class ReadingViewer(threading.Thread):
    """Reads the updates of one viewer until its stream ends, and counts them.

    Attributes:
        seen: the time and colour of each change of the pixel at `spot`.
        closed: the close code and reason; empty while the stream is open.
    """

    def __init__(self, url: str, spot: tuple[int, int], *, decodes: bool) -> None:
        super().__init__(daemon=True)
        self.connect_began_s = time.monotonic()
        self._viewer = cast("TightViewer", TightViewer.connect(url))
        self._viewer.spot = spot
        self._viewer.start(decodes=decodes)
        self._await_complete_picture()
        self.first_frame_s = time.monotonic()
        self.updates = 0
        self.seen: list[tuple[float, tuple[int, int, int]]] = []
        self.closed: dict[str, Any] = {}

    def _await_complete_picture(self) -> None:
        left = self._viewer.width * self._viewer.height
        while left > 0:
            rects = self._viewer.next_update(TIMEOUT_S)
            left -= sum(rect.width * rect.height for rect in rects if rect.encoding >= 0)

    def run(self) -> None:
        try:
            while True:
                before, self._viewer.colour = self._viewer.colour, None
                self._viewer.next_update(TIMEOUT_S * 60)
                self.updates += 1
                if self._viewer.colour is not None and self._viewer.colour != before:
                    self.seen.append((time.monotonic(), self._viewer.colour))
                self._viewer.colour = self._viewer.colour or before
        except Ended:
            closed = self._viewer.wait_closed(5)
            self.closed = {"code": closed.code, "reason": closed.reason}


def main() -> None:
    """Connect all viewers, then answer `{"connect": url}`, `count`, `seen` and `closed`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--spot", default="0,0")
    parser.add_argument("--skip-pixels", action="store_true")
    parser.add_argument("urls", nargs="*")
    arguments = parser.parse_args()
    x, y = arguments.spot.split(",")
    viewers: list[ReadingViewer] = []

    def connect(url: str) -> None:
        viewers.append(ReadingViewer(url, (int(x), int(y)), decodes=not arguments.skip_pixels))
        viewers[-1].start()

    for url in arguments.urls:
        connect(url)
    answer([viewer.first_frame_s - viewer.connect_began_s for viewer in viewers])
    for line in sys.stdin:
        match json.loads(line):
            case {"connect": url}:
                connect(url)
                answer(viewers[-1].first_frame_s)
            case "count":
                answer([time.monotonic(), [viewer.updates for viewer in viewers]])
            case "seen":
                answer(viewers[0].seen)
            case "closed":
                for viewer in viewers:
                    viewer.join(TIMEOUT_S)
                answer([viewer.closed for viewer in viewers])


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
