"""Metrics: every figure there is, and the meter that gathers them in a process.

A meter only adds up in memory, some tenths of a microsecond each; whoever owns
the process hands on now and then what has come together (`drain`).  On Ray that
is `runtime.cluster.metering`, and a metric is exported as `ray_<name>`.

Labels are few and of few values: never an id.  A histogram is told as counters,
the way Prometheus keeps one: `<name>_bucket` by `le`, `<name>_sum`, `<name>_count`.
The table for people is in docs/operations.md, and a test compares the two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

LATE_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0, 900.0)
"""Bounds for what should be on time."""
QUICK_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
"""Bounds for what should take milliseconds."""
LONG_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 2_700.0, 10_800.0)
"""Bounds for what agents do."""


@dataclass(frozen=True)
class Metric:
    """What is measured; units are the last part of the name."""

    name: str
    kind: Kind
    help: str
    label: str = ""
    """The name of its one label; empty: it has none."""
    bounds: tuple[float, ...] = ()
    """Of a histogram's buckets, upwards."""


METRICS: Final = (
    Metric("troupe_runs_started", "counter", "Runs of jobs that were handed to a host"),
    Metric("troupe_runs_ended", "counter", "Runs that have ended, by how", "outcome"),
    Metric("troupe_run_seconds", "histogram", "From slot to end of a run", "outcome", LONG_S),
    Metric("troupe_job_retries", "counter", "Failed attempts that are tried again"),
    Metric("troupe_jobs_dead", "counter", "Jobs that were given up"),
    Metric("troupe_jobs", "gauge", "Jobs that have not ended, by state", "state"),
    Metric("troupe_queue_age_seconds", "gauge", "How long the oldest job has been in the queue"),
    Metric("troupe_scheduler_paused", "gauge", "1 while the scheduler is paused or drained"),
    Metric(
        "troupe_round_seconds", "histogram", "A round of the scheduler: decided and durable",
        bounds=QUICK_S,
    ),
    Metric(
        "troupe_selection_seconds", "histogram", "Choosing which jobs may start", bounds=QUICK_S
    ),
    Metric(
        "troupe_schedule_late_seconds", "histogram",
        "From due time until its job is durable and queued", bounds=LATE_S,
    ),
    Metric("troupe_agents", "gauge", "Agents in memory of a host", "host"),
    Metric("troupe_host_jobs", "gauge", "Jobs that run in a host", "host"),
    Metric("troupe_quarantined", "counter", "Messages and runs given up as deadly to hosts"),
    Metric("troupe_http_requests", "counter", "Requests that a replica has answered", "status"),
    Metric(
        "troupe_http_seconds", "histogram", "From a request to the first byte of its answer",
        "status", QUICK_S,
    ),
    Metric("troupe_streams", "gauge", "Open streams of events, WebSockets among them"),
    Metric("troupe_registry_calls", "counter", "Calls of the registry's actor, by verb", "verb"),
    Metric("troupe_registry_services", "gauge", "Registered services of all organizations"),
    Metric("troupe_store_commits", "counter", "Commits the store has accepted"),
    Metric("troupe_store_refused", "counter", "Commits the store has refused", "reason"),
)  # fmt: skip
_BY_NAME: Final = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class Sample:
    """What a metric has to tell since the last time."""

    metric: Metric
    suffix: str
    """`_bucket`, `_sum` or `_count` of a histogram; else empty."""
    value: float
    """A gauge's present value; of the others, what has been added, which may be nothing."""
    labels: tuple[tuple[str, str], ...] = ()


class Meter:
    """Adds up; every method raises KeyError for a metric that is not in `METRICS`."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], float] = {}
        self._gauges: dict[tuple[str, str], float] = {}
        self._buckets: dict[tuple[str, str], list[int]] = {}
        self._sums: dict[tuple[str, str], float] = defaultdict(float)

    def count(self, name: str, value: float = 1, label: str = "") -> None:
        """Add to a counter; 0 only makes it known."""
        key = (name, label)
        if key in self._counts:
            self._counts[key] += value
        else:
            assert _BY_NAME[name].kind == "counter"
            self._counts[key] = value

    def set(self, name: str, value: float, label: str = "") -> None:
        """What a gauge shows from now on."""
        assert _BY_NAME[name].kind == "gauge"
        self._gauges[name, label] = value

    def observe(self, name: str, value: float, label: str = "") -> None:
        """Add one value to a histogram."""
        bounds = _BY_NAME[name].bounds
        buckets = self._buckets.get((name, label))
        if buckets is None:
            buckets = self._buckets[name, label] = [0] * (len(bounds) + 1)
        buckets[bisect_left(bounds, value)] += 1
        self._sums[name, label] += value

    def drain(self) -> list[Sample]:
        """Everything since the last time; gauges always."""
        samples = [
            Sample(_BY_NAME[name], "", value, _labels(name, label))
            for of in (self._gauges, self._counts)
            for (name, label), value in of.items()
        ]
        for (name, label), buckets in self._buckets.items():
            samples += _histogram(_BY_NAME[name], label, buckets, self._sums[name, label])
        self._counts.clear()
        self._buckets.clear()
        self._sums.clear()
        return samples


def _labels(name: str, label: str) -> tuple[tuple[str, str], ...]:
    return ((_BY_NAME[name].label, label),) if label else ()


def _histogram(metric: Metric, label: str, buckets: list[int], total: float) -> list[Sample]:
    labels = _labels(metric.name, label)
    samples, below = [], 0
    for bound, inside in zip((*map(str, metric.bounds), "+Inf"), buckets, strict=True):
        below += inside
        samples.append(Sample(metric, "_bucket", below, (*labels, ("le", bound))))
    samples.append(Sample(metric, "_sum", total, labels))
    samples.append(Sample(metric, "_count", below, labels))
    return samples
