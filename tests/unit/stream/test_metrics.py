"""The numbers of a stream server, as Prometheus reads them."""

from __future__ import annotations

import os

from prometheus_client.parser import text_string_to_metric_families

from worker.stream.metrics.counters import FIRST_FRAME_BUCKETS_S, Counts, Facts, SessionFacts
from worker.stream.metrics.exposition import Exposition


def samples(counts, *, viewers=None, sent_bytes=0, facts=None):
    """Every sample of an exposition, by name and labels."""
    text = Exposition(
        lambda: counts.numbers(
            state="running",
            viewers=viewers or {},
            sent_bytes=sent_bytes,
            facts=facts or Facts(),
        )
    ).text()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_counts():
    """What happened is what is shown."""
    counts = Counts()
    counts.admitted("view")
    counts.admitted("view")
    counts.refused(401)
    counts.closed(1000)
    found = samples(counts, viewers={"view": 1}, sent_bytes=123)
    assert found["worker_viewers", "view"] == 1
    assert found["worker_viewers", "control"] == 0
    assert found["worker_viewers_admitted_total", "view"] == 2
    assert found["worker_refusals_total", "401"] == 1
    assert found["worker_viewers_closed_total", "1000"] == 1
    assert found["worker_sent_bytes_total",] == 123
    assert found["worker_task_state", "running"] == 1
    assert found["worker_task_state", "ending"] == 0


def test_first_frames():
    """The histogram's buckets add up, and hold what lies on their bounds."""
    counts = Counts()
    for waited_s in (0.01, 0.02, 1000):
        counts.first_frame(waited_s)
    found = samples(counts)
    name = "worker_first_frame_seconds"
    assert found[f"{name}_bucket", "0.01"] == 1
    assert found[f"{name}_bucket", "0.025"] == 2
    assert found[f"{name}_bucket", str(FIRST_FRAME_BUCKETS_S[-1])] == 2
    assert found[f"{name}_bucket", "+Inf"] == found[f"{name}_count",] == 3
    assert found[f"{name}_sum",] == 1000.03


def test_codes_that_viewers_make_up():
    """A viewer that leaves with a code of its own makes no time series of it."""
    counts = Counts()
    for code in range(3000, 3100):
        counts.closed(code)
    found = {key: value for key, value in samples(counts).items() if "closed" in key[0]}
    assert found == {("worker_viewers_closed_total", "other"): 100}


def test_programs():
    """A program's memory and processor time are read now; one that is gone is left out."""
    facts = Facts(
        stages_ms={"xvfb": 250}, restarts={"x11vnc": 2}, pids={"worker": os.getpid(), "gone": 2**22}
    )
    found = samples(Counts(), facts=facts)
    assert found["worker_program_resident_memory_bytes", "worker"] > 1_000_000
    assert found["worker_program_cpu_seconds_total", "worker"] > 0
    assert found["worker_stage_seconds", "xvfb"] == 0.25
    assert found["worker_program_restarts_total", "x11vnc"] == 2
    assert not [key for key in found if "gone" in key]


def test_session_is_asked_once():
    """Many who want to know within a second cost the session one answer."""
    asked = []

    def ask():
        asked.append(1)
        facts.arrived({"kind": "facts", "stages_ms": {}, "restarts": {}, "pids": {"worker": 7}})

    facts = SessionFacts(ask)
    assert [facts.get().pids for _ in range(10)] == [{"worker": 7}] * 10
    assert len(asked) == 1
