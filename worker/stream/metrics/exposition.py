"""The numbers of a stream server as Prometheus text; imported when they are first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from worker.stream.messages import State
from worker.stream.metrics.counters import FIRST_FRAME_BUCKETS_S, Facts, Numbers
from worker.stream.tokens import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
# A viewer names the code that it leaves with: what it makes up must not become a time series.
_KNOWN_CODES: Final = frozenset(range(1000, 1016))
_OTHER: Final = "other"
_MS: Final = 1000


class Exposition:
    """The registry of one server, which holds one collector."""

    def __init__(self, numbers: Callable[[], Numbers]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_NumbersCollector(numbers))

    def text(self) -> bytes:
        """Collect the numbers now; Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


class _NumbersCollector(Collector):
    def __init__(self, numbers: Callable[[], Numbers]) -> None:
        self._numbers = numbers

    def describe(self) -> Iterable[Metric]:
        return ()  # else the registry would collect once at registration

    def collect(self) -> Iterator[Metric]:
        numbers = self._numbers()
        yield from _stream(numbers)
        yield _first_frames(numbers)
        yield from _session(numbers)
        yield from _programs(numbers.facts)


def _stream(numbers: Numbers) -> Iterator[Metric]:
    roles = [str(role) for role in Role]
    yield _gauge(
        "worker_viewers",
        "Viewers connected now.",
        "role",
        {role: numbers.viewers.get(role, 0) for role in roles},
    )
    yield _counter(
        "worker_viewers_admitted",
        "Viewers let in so far.",
        "role",
        {role: numbers.admitted.get(role, 0) for role in roles},
    )
    closes: dict[str, int] = {}
    for code, count in numbers.closes.items():
        label = str(code) if code in _KNOWN_CODES else _OTHER
        closes[label] = closes.get(label, 0) + count
    yield _counter(
        "worker_viewers_closed", "Streams ended so far, by WebSocket close code.", "code", closes
    )
    refusals = {str(status): count for status, count in numbers.refusals.items()}
    yield _counter("worker_refusals", "Requests refused, by HTTP status.", "status", refusals)
    sent = CounterMetricFamily("worker_sent_bytes", "Bytes sent to viewers.")
    sent.add_metric([], numbers.sent_bytes)
    yield sent


def _first_frames(numbers: Numbers) -> Metric:
    buckets, total = [], 0
    bounds = [*map(str, FIRST_FRAME_BUCKETS_S), "+Inf"]
    for bound, count in zip(bounds, numbers.first_frames, strict=True):
        total += count
        buckets.append((bound, total))
    histogram = HistogramMetricFamily(
        "worker_first_frame_seconds",
        "From a viewer's TCP connection to its first frame's first bytes.",
    )
    histogram.add_metric([], buckets, numbers.first_frames_sum_s)
    return histogram


def _session(numbers: Numbers) -> Iterator[Metric]:
    yield _gauge(
        "worker_task_state",
        "1 for what the task is doing now.",
        "state",
        {str(state): int(str(state) == numbers.state) for state in State},
    )
    yield _gauge(
        "worker_stage_seconds",
        "When each stage was over, since the worker's start.",
        "stage",
        {stage: ms / _MS for stage, ms in numbers.facts.stages_ms.items()},
    )
    yield _counter(
        "worker_program_restarts",
        "How often each program of the display stack was restarted.",
        "program",
        numbers.facts.restarts,
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
            continue  # it died since; the session has not said so yet
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
