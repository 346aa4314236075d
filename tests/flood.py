"""A client that sends the same request many times a second, a connection each, in its own process.

    python tests/flood.py HOST PORT REQUESTS_PER_S < REQUEST

It prints an empty line when the first answer has arrived. It ends when SIGTERM arrives, at the
latest after 60 s, and prints a JSON object: how many requests were answered with each status (0:
without one).
"""

from __future__ import annotations

import contextlib
import errno
import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_LONGEST_S = 60.0
_OPEN_MAX = 400
_LAST_ANSWERS_S = 2.0


class _Flood:
    """The open connections, and the answers so far."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.answers: Counter[int] = Counter()
        self.open: dict[int, socket.socket] = {}
        self._address, self._request = address, request
        self._epoll = select.epoll()

    def send(self) -> None:
        """Open a connection and send the request; at the limit, drop the oldest connection."""
        if len(self.open) >= _OPEN_MAX:
            self._end(next(iter(self.open)), 0)
        connection = socket.socket()
        connection.setblocking(False)
        if connection.connect_ex(self._address) not in (0, errno.EINPROGRESS):
            connection.close()
            self.answers[0] += 1
            return
        self.open[connection.fileno()] = connection
        self._epoll.register(connection, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)

    def read(self, timeout_s: float) -> None:
        """Send requests on new connections and read the answers that arrive within this time."""
        for descriptor, happened in self._epoll.poll(timeout_s):
            connection = self.open[descriptor]
            try:
                if happened == select.EPOLLOUT:
                    connection.sendall(self._request)
                    continue
                answer = connection.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                answer = b""
            self._end(descriptor, int(answer[9:12]) if answer[:5] == b"HTTP/" else 0)

    def _end(self, descriptor: int, status: int) -> None:
        self.answers[status] += 1
        self.open.pop(descriptor).close()


def main() -> None:
    """Send at the given rate until the end, then wait for the last answers."""
    host, port, per_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: over.append(number))
    flood = _Flood((host, port), sys.stdin.buffer.read())
    began = time.monotonic()
    sent = 0
    announced = False
    while not over and (now := time.monotonic() - began) < _LONGEST_S:
        for _ in range(min(int(now * per_s) - sent, 64)):
            flood.send()
            sent += 1
        flood.read(1 / per_s)
        if not announced and flood.answers:
            announced = True
            print(flush=True)
    deadline = time.monotonic() + _LAST_ANSWERS_S
    while flood.open and time.monotonic() < deadline:
        flood.read(0.1)
    flood.answers[0] += len(flood.open)
    print(json.dumps(flood.answers))


@contextlib.contextmanager
def flooded(port: int, *requests: bytes, per_s: float) -> Iterator[Counter[int]]:
    """Send requests to a port of 127.0.0.1 until the end of the block; the first are answered.

    Args:
        port: the server's.
        requests: what to send, each by a process of its own.
        per_s: how many requests a second, in total.

    Yields:
        how many were answered with each status, known after the block.
    """
    command = [sys.executable, str(Path(__file__)), "127.0.0.1", str(port)]
    answers: Counter[int] = Counter()
    with contextlib.ExitStack() as stack:
        processes = []
        for request in requests:
            process = subprocess.Popen(
                [*command, str(per_s / len(requests))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            stack.callback(process.kill)
            stack.enter_context(process)
            assert process.stdin is not None
            process.stdin.write(request)
            process.stdin.close()
            process.stdin = None
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield answers
        for process in processes:
            process.terminate()
        for process in processes:
            said, _ = process.communicate(timeout=_LONGEST_S)
            answers.update({int(status): count for status, count in json.loads(said).items()})


if __name__ == "__main__":
    main()
