"""Metering: a process's figures as Ray's metrics, which Prometheus reads as `ray_<name>`.

Ray takes about nine microseconds for each value, so what has come together is
handed on every `EVERY_S` only; a histogram goes as the counters it is made of.
Ray itself exports every ten seconds unless it is told otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from ray.util.metrics import Counter, Gauge

from runtime.errors import StoreUnavailableError
from runtime.metrics import Meter, Sample

EVERY_S: Final = 5.0
NOTHING: Final = 5e-324
"""What a series begins with that has counted nothing yet: Ray takes no 0. For Prometheus's
`rate` and `increase` one that begins with 1 has never grown, and the first is not seen."""


class Exporter:
    """Hands samples to Ray; owns Ray's objects, one for each name."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._begun: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        """The series of counters that there are."""

    def tell(self, samples: list[Sample]) -> None:
        for sample in samples:
            name = sample.metric.name + sample.suffix
            metric = self._metric(name, sample)
            if isinstance(metric, Gauge):
                metric.set(sample.value, tags=dict(sample.labels))
            elif sample.value > 0 or (name, sample.labels) not in self._begun:
                self._begun.add((name, sample.labels))
                metric.inc(sample.value or NOTHING, tags=dict(sample.labels))

    def _metric(self, name: str, sample: Sample) -> Any:
        if name not in self._made:
            kind = Gauge if sample.metric.kind == "gauge" else Counter
            labels = (sample.metric.label,) if sample.metric.label else ()
            if sample.suffix == "_bucket":
                labels = (*labels, "le")
            self._made[name] = kind(name, sample.metric.help, labels)
        return self._made[name]


async def export(meter: Meter, look: Callable[[], Awaitable[None]]) -> None:
    """Hand on what a meter has gathered, until cancelled and what has come by then.

    Args:
        look: sets the gauges; called each time before.
    """
    exporter = Exporter()
    try:
        while True:
            await asyncio.sleep(EVERY_S)
            with suppress(StoreUnavailableError):  # then the gauges are as old as they are
                await look()
            exporter.tell(meter.drain())
    finally:
        exporter.tell(meter.drain())
