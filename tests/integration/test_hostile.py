"""Hostile viewers are dropped, and a well-behaved viewer is not affected."""

from __future__ import annotations

import contextlib
import select
import statistics
import struct
import threading
import time
from pathlib import Path

import pytest
from rfb_client import Ended, Refused, Viewer, half_open
from viewers import SMALL_BUFFER_BYTES
from websocket_client import open_tcp
from worker_run import PROGRAMS, eventually
from x_client import Canvas

TASKS = str(PROGRAMS / "tasks.py")
GONE_S = 60  # bounds a wait that normally takes 10 s
GROWTH_MAX_BYTES = 64 * 2**20
RATIO_MAX = 1.5
HALF_OPEN = 200
LINGERERS = 140  # more than the server has threads for requests
ROUNDS = 5
SAMPLES = 300  # take about half of the time until the hostile clients are dropped
PLACE, SIZE = 100, 64


class Good:
    """A viewer that measures the time from a change of the display to its own pixel."""

    def __init__(self, worker):
        self.canvas = Canvas(
            worker.display, worker.xauthority, x=PLACE, y=PLACE, width=SIZE, height=SIZE
        )
        self.viewer = Viewer.connect(worker.stream_url())
        self.viewer.request_update(incremental=False)
        self.viewer.read_update(10)
        self.viewer.request_update(incremental=True)
        self.changes = 0

    def sample(self):
        """Change the display once; seconds until the viewer has the pixel."""
        self.changes += 1
        colour = (self.changes % 256, self.changes // 256 % 256, 128)
        began = time.monotonic()
        self.canvas.fill(colour)
        while self.viewer.pixel(PLACE + SIZE // 2, PLACE + SIZE // 2) != colour:
            self.viewer.read_update(10)
            self.viewer.request_update(incremental=True)
        return time.monotonic() - began

    def samples(self):
        """The samples of one round."""
        return [self.sample() for _ in range(SAMPLES)]


class Bad:
    """All kinds of hostile clients at once, one thread each, until the server drops them."""

    def __init__(self, worker):
        self.wrong = []
        address = ("127.0.0.1", worker.port)
        self.half_open = [half_open(*address) for _ in range(HALF_OPEN)]
        self.threads = [
            threading.Thread(target=self._act, args=(act, what), daemon=True)
            for act, what in (
                (self._never_reads, worker.stream_url()),
                (self._frames_a_byte_a_second, worker.stream_url()),
                (self._request_a_byte_a_second, address),
                (self._wait_for_408, self.half_open),
            )
        ]
        for thread in self.threads:
            thread.start()

    def _act(self, act, what):
        try:
            act(what)
        except Exception as error:
            self.wrong.append(error)

    @staticmethod
    def _never_reads(url):
        viewer = Viewer.connect(url, recv_buffer_bytes=SMALL_BUFFER_BYTES)
        poll = select.poll()  # its socket is never read, so only an end of TCP is seen
        poll.register(viewer.websocket._sock, select.POLLRDHUP)
        while not poll.poll(50):
            viewer.request_update(incremental=False)
        viewer.websocket.abort()

    @staticmethod
    def _frames_a_byte_a_second(url):
        viewer = Viewer.connect(url)
        event = struct.pack(">BBHH", 5, 0, 1, 1)
        for byte in bytes([0x82, 0x80 | len(event)]) + bytes(4) + event * 100:
            viewer.websocket.send_tcp(bytes([byte]))
            with contextlib.suppress(TimeoutError, Ended):
                viewer.websocket.read_some(memoryview(bytearray(100)), time.monotonic() + 1)
            if viewer.websocket.closed:
                assert viewer.websocket.closed.code == 1008
                break
        viewer.websocket.abort()

    @staticmethod
    def _request_a_byte_a_second(address):
        with open_tcp(*address, timeout_s=10) as sock:
            for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n":
                sock.sendall(bytes([byte]))
                if select.select([sock], [], [], 1)[0]:
                    assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")
                    return

    @staticmethod
    def _wait_for_408(half_open):
        deadline = time.monotonic() + GONE_S
        for sock in half_open:
            with sock:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")

    def wait_gone(self):
        """Wait for the end of each."""
        for thread in self.threads:
            thread.join(GONE_S)
            assert not thread.is_alive()


def p95(samples):
    """The 95th percentile."""
    return statistics.quantiles(samples, n=20)[-1]


def rss_bytes(pid):
    """A process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def assert_dropped(worker, count):
    """The first `count` viewers that were closed were dropped as too slow."""
    for number in range(1, count + 1):
        closed = worker.event("viewer.closed", count=number)
        assert (closed["code"], closed["reason"]) == (1008, "viewer too slow")


def test_hostile_viewers_are_dropped(run):
    """A good viewer gets every change while hostile ones are connected, until all are dropped."""
    worker = run("--", "sleep", "600")
    good = Good(worker)
    server = worker.pid("worker.stream")
    with good.canvas, good.viewer:
        good.samples()
        rss_before = rss_bytes(server)
        bad = Bad(worker)
        good.samples()
        growth = rss_bytes(server) - rss_before
        bad.wait_gone()
        assert not bad.wrong
        assert_dropped(worker, 2)
        good.sample()
    assert growth <= GROWTH_MAX_BYTES


@pytest.mark.measured
@pytest.mark.timeout(300)
def test_latency_beside_hostile_viewers(run):
    """The p95 latency of a good viewer rises by at most 50 % (median of rounds, in turns)."""
    worker = run("--", "sleep", "600")
    good = Good(worker)
    ratios = []
    with good.canvas, good.viewer:
        good.samples()
        for finished in range(1, ROUNDS + 1):
            alone = p95(good.samples())
            bad = Bad(worker)
            ratios.append(p95(good.samples()) / alone)
            bad.wait_gone()
            assert not bad.wrong
            assert_dropped(worker, 2 * finished)
    print(f"p95 beside hostile viewers / alone: {[round(ratio, 2) for ratio in ratios]}")
    assert statistics.median(ratios) <= RATIO_MAX


@pytest.mark.measured
@pytest.mark.timeout(300)
def test_updates_beside_an_expensive_viewer(run):
    """A viewer gets at least half as many updates beside one that asks for the most of x11vnc."""
    worker = run("--", "sleep", "600")
    good = Good(worker)
    with good.canvas, good.viewer, Canvas(worker.display, worker.xauthority, x=200, y=0) as other:
        other.pattern()
        good.samples()
        alone = statistics.median(sum(good.samples()) for _ in range(3))
        with expensive(worker.stream_url()):
            good.samples()
            beside = statistics.median(sum(good.samples()) for _ in range(3))
    print(f"time for {SAMPLES} updates: alone {alone:.2f} s, beside {beside:.2f} s")
    assert beside <= 2 * alone


@contextlib.contextmanager
def expensive(url):
    """A viewer with the slowest encoding that requests whole frames all the time."""
    over = threading.Event()
    viewer = Viewer.connect(url)
    viewer.set_encodings(6, -247)  # Zlib, compression level 9
    received = memoryview(bytearray(1 << 20))

    def ask():
        while not over.is_set():
            viewer.request_update(incremental=False)
            viewer.request_update(incremental=True)
            with contextlib.suppress(TimeoutError):
                viewer.websocket.read_some(received, time.monotonic() + 0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        viewer.websocket.abort()


def test_lingering_peers_do_not_block_viewers(run):
    """A viewer is admitted while 140 answered peers keep sending a byte now and then."""
    worker = run("--", "sleep", "600")
    url = worker.stream_url()
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(LINGERERS):
            sock = stack.enter_context(open_tcp("127.0.0.1", worker.port, timeout_s=10))
            sock.sendall(b"GET /nothing HTTP/1.1\r\n\r\n")
            socks.append(sock)
        over = threading.Event()

        def keep_sending():
            while not over.wait(0.1):
                for sock in socks:
                    with contextlib.suppress(OSError):
                        sock.sendall(b"x")

        sender = threading.Thread(target=keep_sending)
        sender.start()
        try:

            def answered():
                with contextlib.suppress(Refused):
                    return stack.enter_context(Viewer.connect(url, timeout_s=10))

            eventually(answered, what="a viewer is admitted")
        finally:
            over.set()
            sender.join()
