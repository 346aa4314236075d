"""Limits of one task's stream: viewer slots, tokens, slow viewers, addresses in events."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from rfb_client import Ended, Refused, Viewer
from viewers import SMALL_BUFFER_BYTES
from worker_run import PROGRAMS, eventually

TASKS = str(PROGRAMS / "tasks.py")
MAX_VIEWERS = 16


@pytest.fixture
def worker(run, tmp_path):
    """A worker whose display is empty."""
    started = run(f"{TASKS}:until", "--input", f"file={tmp_path / 'end'}")
    started.event("task.started")
    return started


def read_pixel(viewer):
    """Request one pixel and wait for it."""
    viewer.request_update(incremental=False, w=1, h=1)
    return viewer.read_update(20)


def test_seventeenth_viewer_gets_503(worker):
    """It gets Retry-After, and is admitted with the same token after another viewer has left."""
    with contextlib.ExitStack() as stack:
        viewers = [
            stack.enter_context(Viewer.connect(worker.stream_url())) for _ in range(MAX_VIEWERS)
        ]
        for viewer in viewers:
            read_pixel(viewer)
        url = worker.stream_url()
        with pytest.raises(Refused) as refused:
            Viewer.connect(url)
        assert (refused.value.status, refused.value.detail) == (503, "Too many viewers")
        assert int(refused.value.headers["Retry-After"]) > 0
        viewers[0].close()
        late = eventually(lambda: admitted(url), what="the next viewer is admitted")
        stack.enter_context(late)
        for viewer in (*viewers[1:], late):
            read_pixel(viewer)


def admitted(url):
    """Connect a viewer; None while it is refused."""
    try:
        return Viewer.connect(url)
    except Refused as refused:
        assert refused.status == 503
        return None


def test_simultaneous_viewers_get_exactly_the_free_slots(run, tmp_path):
    """Of 12 viewers that connect at once, 3 are admitted to 3 slots; the others get 503."""
    worker = run(
        f"{TASKS}:until",
        *("--input", f"file={tmp_path / 'end'}"),
        env={"WORKER_MAX_VIEWERS": "3"},
    )
    urls = [worker.stream_url() for _ in range(12)]
    results: list[Viewer | Refused] = []
    start = threading.Barrier(len(urls))

    def connect(url):
        start.wait()
        try:
            results.append(Viewer.connect(url))
        except Refused as refused:
            results.append(refused)

    threads = [threading.Thread(target=connect, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    viewers = [result for result in results if isinstance(result, Viewer)]
    assert len(viewers) == 3
    assert {result.status for result in results if isinstance(result, Refused)} == {503}
    for viewer in viewers:
        viewer.close()


def test_token_is_valid_once(worker):
    """Of 8 viewers that connect at once with one token, 1 is admitted; the others get 401."""
    url = worker.stream_url()
    results: list[int] = []
    start = threading.Barrier(8)

    def connect():
        start.wait()
        try:
            Viewer.connect(url).close()
            results.append(101)
        except Refused as refused:
            results.append(refused.status)

    threads = [threading.Thread(target=connect) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [101] + [401] * 7


def test_viewer_that_reads_1_kb_per_second_is_dropped(worker):
    """It gets 1008 "viewer too slow"; another viewer is not affected."""
    slow = Viewer.connect(worker.stream_url(), recv_buffer_bytes=SMALL_BUFFER_BYTES)
    for _ in range(8):
        slow.request_update(incremental=False)
    slow.websocket.flush(5)
    with Viewer.connect(worker.stream_url()) as good, trickle(slow):
        read_pixel(good)
        closed = worker.event("viewer.closed")
        assert (closed["code"], closed["reason"]) == (1008, "viewer too slow")
        assert closed["limit"] == "read_rate"
        read_pixel(good)


@contextlib.contextmanager
def trickle(viewer):
    """Read 1 kB/s of what a viewer gets."""
    over = threading.Event()
    taken = memoryview(bytearray(1000))

    def read():
        with contextlib.suppress(Ended):
            while not over.wait(1):
                with contextlib.suppress(TimeoutError):
                    viewer.websocket.read_some(taken, time.monotonic())
        viewer.websocket.abort()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()


def test_address_in_events_comes_from_a_trusted_proxy(run, tmp_path):
    """Events hold the address that a trusted proxy forwards, the role, and no token."""
    worker = run(
        f"{TASKS}:until",
        *("--input", f"file={tmp_path / 'end'}"),
        env={"WORKER_TRUSTED_PROXIES": "127.0.0.0/8"},
    )
    url = worker.stream_url()
    headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9"}
    Viewer.connect(url, headers=headers).close()
    connected, closed = worker.event("viewer.connected"), worker.event("viewer.closed")
    for event in (connected, closed):
        assert (event["address"], event["role"]) == ("203.0.113.9", "view")
    assert closed["duration_s"] >= 0
    assert closed["bytes_out"] > 0
    assert closed["bytes_in"] > 0
    assert closed["code"] == 1000
    with pytest.raises(Refused):
        Viewer.connect(url, headers=headers)
    refused = worker.event("viewer.refused")
    assert (refused["address"], refused["status"]) == ("203.0.113.9", 401)
    assert url.partition("token=")[2] not in str(worker.events)


def test_forwarded_address_is_ignored_by_default(worker):
    """Without trusted proxies events hold the peer's address."""
    Viewer.connect(worker.stream_url(), headers={"X-Forwarded-For": "203.0.113.9"}).close()
    assert worker.event("viewer.connected")["address"] == "127.0.0.1"
