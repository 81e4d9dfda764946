"""What is handed on to Ray is what Prometheus can compute with."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import ClassVar

import pytest

from runtime.cluster import metering
from runtime.cluster.metering import EVERY_S, NOTHING, Exporter, export
from runtime.errors import StoreUnavailableError
from runtime.metrics import METRICS, Meter
from runtime.observed import Observed
from runtime.verify.loop import run

Series = dict[tuple[str, ...], float]


class RayCounter:
    """Adds up like Ray's, and refuses what it does."""

    told: ClassVar[defaultdict[str, Series]] = defaultdict(dict)

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self._name, self._keys = name, tag_keys

    def inc(self, value: float, tags: dict[str, str]) -> None:
        if value <= 0:
            raise ValueError(f"value must be >0, got {value}")
        series, labels = self.told[self._name], tuple(tags[key] for key in self._keys)
        series[labels] = series.get(labels, 0.0) + value


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> defaultdict[str, Series]:
    """What Ray would export of counters: name -> labels -> value."""
    RayCounter.told = defaultdict(dict)
    monkeypatch.setattr(metering, "Counter", RayCounter)
    return RayCounter.told


def test_a_counter_is_there_before_it_counts(told: defaultdict[str, Series]) -> None:
    """The first job that is given up would be in no rate: its series would begin with it."""
    meter, exporter = Meter(), Exporter()
    Observed(meter)
    exporter.tell(meter.drain())
    dead, ended = told["troupe_jobs_dead"], told["troupe_runs_ended"]
    assert dead == {(): NOTHING}
    assert set(ended) == {("completed",), ("cancelled",), ("failed",), ("waiting",), ("paused",)}
    meter.count("troupe_jobs_dead")
    exporter.tell(meter.drain())
    exporter.tell(meter.drain())
    assert dead == {(): 1}


def quantile(buckets: dict[float, float], share: float) -> float:
    """`histogram_quantile` of Prometheus."""
    bounds = sorted(buckets)
    rank, below, count = share * buckets[bounds[-1]], 0.0, 0.0
    for place, bound in enumerate(bounds):
        if buckets[bound] >= rank:
            if bound == float("inf"):
                return bounds[place - 1] if place else float("nan")
            return below + (bound - below) * (rank - count) / (buckets[bound] - count)
        below, count = bound, buckets[bound]
    raise AssertionError("the last bucket has all")


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [(2_000, 900, 2_700), (20_000, 10_800, 10_800), (0.001, 0, 0.01)]
)
def test_a_quantile_lies_in_the_bucket_of_what_was_seen(
    told: defaultdict[str, Series], seconds: float, least: float, most: float
) -> None:
    """Runs that all take 40 minutes would be shown as 22: what is below the first is nothing."""
    meter, exporter = Meter(), Exporter()
    meter.observe("troupe_run_seconds", seconds, "completed")
    exporter.tell(meter.drain())
    series = told["troupe_run_seconds_bucket"]
    buckets = {float(bound): value for (_, bound), value in series.items()}
    [metric] = [one for one in METRICS if one.name == "troupe_run_seconds"]
    assert len(buckets) == len(metric.bounds) + 1
    assert least <= quantile(buckets, 0.01) <= quantile(buckets, 0.99) <= most
    assert told["troupe_run_seconds_count"] == {("completed",): 1}
    assert told["troupe_run_seconds_sum"] == {("completed",): pytest.approx(seconds)}


def test_what_came_last_is_handed_on_too(told: defaultdict[str, Series]) -> None:
    """A scheduler that ends would take along why."""
    run(_ends(told))


async def _ends(told: defaultdict[str, Series]) -> None:
    meter, looks = Meter(), 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        raise StoreUnavailableError

    exporting = asyncio.create_task(export(meter, look))
    meter.count("troupe_jobs_dead")
    await asyncio.sleep(EVERY_S + 0.1)
    assert (looks, told["troupe_jobs_dead"]) == (1, {(): 1})
    meter.count("troupe_jobs_dead")
    exporting.cancel()
    await asyncio.gather(exporting, return_exceptions=True)
    assert told["troupe_jobs_dead"] == {(): 2}
