"""The process under test: a stream server that counts the lines of its code that were reached."""

from __future__ import annotations

import json
import mmap
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import stream
from worker.stream.messages import Configure, State, StreamConfig
from worker.stream.port.rates import Rates
from worker.stream.port.triage import RequestLimits
from worker.stream.server import StreamServer
from worker.stream.service import StreamService
from worker.stream.session_channel import SessionChannel

if TYPE_CHECKING:
    from types import CodeType, FrameType

_NO_LIMIT = 10**9  # the fuzzer is one client that sends thousands of requests per second
_STREAM_DIR = str(Path(stream.__file__).parent)


def trace_into(counter: mmap.mmap) -> None:
    """Count the lines of worker.stream that are reached from now on, in all threads."""
    seen: set[tuple[CodeType, int]] = set()
    lock = threading.Lock()

    def note(frame: FrameType, event: str, _arg: Any) -> Any:
        line = (frame.f_code, frame.f_lineno)
        if event == "line" and line not in seen:
            with lock:
                seen.add(line)
                counter[:8] = struct.pack("Q", len(seen))
        return note

    def enter(frame: FrameType, _event: str, _arg: Any) -> Any:
        return note if frame.f_code.co_filename.startswith(_STREAM_DIR) else None

    threading.settrace(enter)
    sys.settrace(enter)


def main() -> None:
    """Serve; arguments: CONFIG CHANNEL_FD LISTENER_FD COUNTER_FD [--trace]."""
    config = json.loads(sys.argv[1])
    channel, listener = (socket.socket(fileno=int(number)) for number in sys.argv[2:4])
    configure = Configure(config=StreamConfig(**config), state=State.RUNNING, used_tokens=())
    session = SessionChannel(channel)
    rate = Rates(per_s=_NO_LIMIT, burst=_NO_LIMIT, all_per_s=_NO_LIMIT, all_burst=_NO_LIMIT)
    limits = RequestLimits(pages=rate, streams=rate, per_token=rate, metrics=rate)
    server = StreamServer(StreamService(configure, session), listener, session, limits)
    counter = mmap.mmap(int(sys.argv[4]), 8)
    if "--trace" in sys.argv:
        trace_into(counter)
    server.serve()


if __name__ == "__main__":
    main()
