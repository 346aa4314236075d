"""What one task's stream serves at most, and whom it drops."""

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
    """A worker that shows a page."""
    started = run(f"{TASKS}:until_with_page", "--input", f"file={tmp_path / 'end'}")
    started.event("task.started")
    return started


def watches(viewer):
    """Ask for a pixel, and get it."""
    viewer.request_update(incremental=False, w=1, h=1)
    return viewer.read_update(20)


def test_sixteen_viewers(worker):
    """16 watch, the 17th gets 503 with Retry-After, and is let in when one has left."""
    with contextlib.ExitStack() as stack:
        viewers = [
            stack.enter_context(Viewer.connect(worker.stream_url())) for _ in range(MAX_VIEWERS)
        ]
        for viewer in viewers:
            watches(viewer)
        url = worker.stream_url()
        with pytest.raises(Refused) as refused:
            Viewer.connect(url)
        assert (refused.value.status, refused.value.detail) == (503, "Too many viewers")
        assert int(refused.value.headers["Retry-After"]) > 0
        viewers[0].close()
        late = eventually(lambda: admitted(url), what="the next is let in")
        stack.enter_context(late)
        for viewer in (*viewers[1:], late):
            watches(viewer)


def admitted(url):
    """A viewer, unless it is refused; a refusal does not use its token up."""
    try:
        return Viewer.connect(url)
    except Refused as refused:
        assert refused.status == 503
        return None


def test_seats_are_given_one_by_one(run, tmp_path):
    """Of many that come at once, exactly as many as there are seats get in."""
    worker = run(
        f"{TASKS}:until",
        *("--input", f"file={tmp_path / 'end'}"),
        env={"WORKER_MAX_VIEWERS": "3"},
    )
    urls = [worker.stream_url() for _ in range(12)]
    results: list[Viewer | Refused] = []
    start = threading.Barrier(len(urls))

    def come(url):
        start.wait()
        try:
            results.append(Viewer.connect(url))
        except Refused as refused:
            results.append(refused)

    threads = [threading.Thread(target=come, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    viewers = [result for result in results if isinstance(result, Viewer)]
    assert len(viewers) == 3
    assert {result.status for result in results if isinstance(result, Refused)} == {503}
    for viewer in viewers:
        viewer.close()


def test_a_token_in_two_hands(worker):
    """Of many that come with the same token at once, one gets in; the others get 401."""
    url = worker.stream_url()
    results: list[int] = []
    start = threading.Barrier(8)

    def come():
        start.wait()
        try:
            Viewer.connect(url).close()
            results.append(101)
        except Refused as refused:
            results.append(refused.status)

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [101] + [401] * 7


def test_a_trickle_is_too_slow(worker):
    """A viewer that requests frames and reads 1 kB/s is dropped; another viewer is not affected."""
    slow = Viewer.connect(worker.stream_url(), recv_buffer_bytes=SMALL_BUFFER_BYTES)
    for _ in range(8):
        slow.request_update(incremental=False)
    slow.websocket.flush(5)
    with Viewer.connect(worker.stream_url()) as good, trickle(slow):
        watches(good)
        closed = worker.event("viewer.closed")
        assert (closed["code"], closed["reason"]) == (1008, "viewer too slow")
        watches(good)


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


def test_whose_address_is_told(run, tmp_path):
    """Events tell the viewer's address and role as a trusted proxy tells it, and no token."""
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


def test_nobody_is_trusted_by_default(worker):
    """Without trusted proxies the events tell the peer's address, whatever the header says."""
    Viewer.connect(worker.stream_url(), headers={"X-Forwarded-For": "203.0.113.9"}).close()
    assert worker.event("viewer.connected")["address"] == "127.0.0.1"
