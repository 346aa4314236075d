"""The metrics of a stream server as Prometheus text; imported on the first request for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from worker.stream.messages import Facts, State
from worker.stream.metrics.counters import FIRST_FRAME_BUCKETS_S, Snapshot
from worker.stream.tokens import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
# A viewer chooses the code that it closes with; unknown codes must not create time series.
_KNOWN_CODES: Final = frozenset(range(1000, 1016))
_OTHER: Final = "other"
_MS: Final = 1000


class Exposition:
    """The registry of one server, which holds one collector."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_SnapshotCollector(snapshot))

    def text(self) -> bytes:
        """The current values in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        return ()  # otherwise the registry collects once at registration

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot()
        yield from _stream(snapshot)
        yield _first_frames(snapshot)
        yield from _session(snapshot)
        yield from _programs(snapshot.facts)


def _stream(snapshot: Snapshot) -> Iterator[Metric]:
    roles = [str(role) for role in Role]
    yield _gauge(
        "worker_viewers",
        "Viewers connected now.",
        "role",
        {role: snapshot.viewers.get(role, 0) for role in roles},
    )
    yield _counter(
        "worker_viewers_admitted",
        "Viewers admitted so far.",
        "role",
        {role: snapshot.admitted.get(role, 0) for role in roles},
    )
    closes: dict[str, int] = {}
    for code, count in snapshot.closes.items():
        label = str(code) if code in _KNOWN_CODES else _OTHER
        closes[label] = closes.get(label, 0) + count
    yield _counter(
        "worker_viewers_closed", "Streams ended so far, by WebSocket close code.", "code", closes
    )
    refusals = {str(status): count for status, count in snapshot.refusals.items()}
    yield _counter("worker_refusals", "Requests refused, by HTTP status.", "status", refusals)
    sent = CounterMetricFamily("worker_sent_bytes", "Bytes sent to viewers.")
    sent.add_metric([], snapshot.sent_bytes)
    yield sent


def _first_frames(snapshot: Snapshot) -> Metric:
    buckets, total = [], 0
    bounds = [*map(str, FIRST_FRAME_BUCKETS_S), "+Inf"]
    for bound, count in zip(bounds, snapshot.first_frames, strict=True):
        total += count
        buckets.append((bound, total))
    histogram = HistogramMetricFamily(
        "worker_first_frame_seconds",
        "From a viewer's TCP connection to its first frame's first bytes.",
    )
    histogram.add_metric([], buckets, snapshot.first_frames_sum_s)
    return histogram


def _session(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge(
        "worker_task_state",
        "1 for the current state of the task.",
        "state",
        {str(state): int(str(state) == snapshot.state) for state in State},
    )
    yield _gauge(
        "worker_stage_seconds",
        "When each stage was over, since the worker's start.",
        "stage",
        {stage: ms / _MS for stage, ms in snapshot.facts.stages_ms.items()},
    )
    yield _counter(
        "worker_program_restarts",
        "How often each program of the display stack was restarted.",
        "program",
        snapshot.facts.restarts,
    )


def _programs(facts: Facts) -> Iterator[Metric]:
    resident_bytes, cpu_s = {}, {}
    for program, pid in facts.pids.items():
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                resident_bytes[program] = process.memory_info().rss
                times = process.cpu_times()
        except psutil.Error:
            continue  # it has ended; the session has not reported it yet
        cpu_s[program] = times.user + times.system
    yield _gauge(
        "worker_program_resident_memory_bytes",
        "Resident memory of each program of the display stack.",
        "program",
        resident_bytes,
    )
    yield _counter(
        "worker_program_cpu_seconds",
        "Processor time of each program since it was started.",
        "program",
        cpu_s,
    )


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value_of, value in values.items():
        family.add_metric([value_of], value)
    return family


def _counter(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value_of, value in values.items():
        family.add_metric([value_of], value)
    return family
