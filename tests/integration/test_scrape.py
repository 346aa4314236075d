"""`/metrics` of a running worker."""

from __future__ import annotations

import os
import signal
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rfb_client import Refused, Viewer
from worker_run import eventually

STACK = {"worker", "supervisord", "xvfb", "window_manager", "x11vnc", "websockify"}


def scrape(worker):
    """Every sample, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_scrape(run):
    """While a viewer watches, a scrape shows it, its bytes, its first frame, and each program."""
    worker = run("--", "sleep", "600")
    url = worker.stream_url()
    with Viewer.connect(url) as viewer:
        viewer.request_update(incremental=False)
        viewer.read_update(10)
        found = scrape(worker)
        assert found["worker_viewers", "view"] == 1
        assert found["worker_viewers_admitted_total", "view"] == 1
        assert found["worker_sent_bytes_total",] >= 1920 * 1080 * 4
        assert found["worker_first_frame_seconds_count",] == 1
        assert 0 < found["worker_first_frame_seconds_sum",] < 10
        assert found["worker_task_state", "running"] == 1
        assert found["worker_stage_seconds", "xvfb"] > 0
        for name in ("resident_memory_bytes", "cpu_seconds_total"):
            programs = {key[1] for key in found if key[0] == f"worker_program_{name}"}
            assert programs >= STACK
        token = url.partition("token=")[2]
        assert not [key for key in found if token in str(key)]
    before = found["worker_sent_bytes_total",]
    worker.event("viewer.closed")
    found = eventually(lambda: (now := scrape(worker))["worker_viewers", "view"] == 0 and now)
    assert found["worker_viewers_closed_total", "1000"] == 1
    assert found["worker_sent_bytes_total",] >= before


def test_restarts_and_refusals(run):
    """A program that was restarted and a token that was refused are counted."""
    worker = run("--", "sleep", "600")
    url = worker.stream_url()
    Viewer.connect(url).close()
    with pytest.raises(Refused):
        Viewer.connect(url)
    os.kill(worker.pid("x11vnc -display"), signal.SIGKILL)
    worker.event("x11vnc.restarted")
    found = eventually(
        lambda: (now := scrape(worker))["worker_program_restarts_total", "x11vnc"] and now
    )
    assert found["worker_program_restarts_total", "x11vnc"] == 1
    assert found["worker_program_restarts_total", "websockify"] == 0
    assert found["worker_refusals_total", "401"] == 1
