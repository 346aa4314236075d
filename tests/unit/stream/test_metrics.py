"""The metrics of a stream server, as Prometheus parses them."""

from __future__ import annotations

import os

from prometheus_client.parser import text_string_to_metric_families

from worker.stream.messages import Facts
from worker.stream.metrics.counters import FIRST_FRAME_BUCKETS_S, Counters
from worker.stream.metrics.exposition import Exposition


def samples(counts, *, viewers=None, sent_bytes=0, facts=None):
    """Every sample of an exposition, by name and labels."""
    text = Exposition(
        lambda: counts.snapshot(
            state="running",
            viewers=viewers or {},
            sent_bytes=sent_bytes,
            facts=facts or Facts(stages_ms={}, restarts={}, pids={}),
        )
    ).text()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_counters_are_exposed_by_label():
    counts = Counters()
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


def test_the_first_frame_histogram_is_cumulative_and_includes_upper_bounds():
    counts = Counters()
    for waited_s in (0.01, 0.02, 1000):
        counts.first_frame(waited_s)
    found = samples(counts)
    name = "worker_first_frame_seconds"
    assert found[f"{name}_bucket", "0.01"] == 1
    assert found[f"{name}_bucket", "0.025"] == 2
    assert found[f"{name}_bucket", str(FIRST_FRAME_BUCKETS_S[-1])] == 2
    assert found[f"{name}_bucket", "+Inf"] == found[f"{name}_count",] == 3
    assert found[f"{name}_sum",] == 1000.03


def test_unknown_close_codes_share_one_time_series():
    counts = Counters()
    for code in range(3000, 3100):
        counts.closed(code)
    found = {key: value for key, value in samples(counts).items() if "closed" in key[0]}
    assert found == {("worker_viewers_closed_total", "other"): 100}


def test_memory_and_cpu_of_running_programs_are_exposed():
    facts = Facts(
        stages_ms={"xvfb": 250}, restarts={"x11vnc": 2}, pids={"worker": os.getpid(), "gone": 2**22}
    )
    found = samples(Counters(), facts=facts)
    assert found["worker_program_resident_memory_bytes", "worker"] > 1_000_000
    assert found["worker_program_cpu_seconds_total", "worker"] > 0
    assert found["worker_stage_seconds", "xvfb"] == 0.25
    assert found["worker_program_restarts_total", "x11vnc"] == 2
    assert not [key for key in found if "gone" in key]
