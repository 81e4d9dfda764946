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


class Exporter:
    """Hands samples to Ray; owns Ray's objects, one for each name."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def tell(self, samples: list[Sample]) -> None:
        for sample in samples:
            metric = self._metric(sample)
            if isinstance(metric, Gauge):
                metric.set(sample.value, tags=dict(sample.labels))
            elif sample.value > 0:
                metric.inc(sample.value, tags=dict(sample.labels))

    def _metric(self, sample: Sample) -> Any:
        name = sample.metric.name + sample.suffix
        if name not in self._made:
            kind = Gauge if sample.metric.kind == "gauge" else Counter
            labels = (sample.metric.label,) if sample.metric.label else ()
            if sample.suffix == "_bucket":
                labels = (*labels, "le")
            self._made[name] = kind(name, sample.metric.help, labels)
        return self._made[name]


async def export(meter: Meter, look: Callable[[], Awaitable[None]]) -> None:
    """Hand on what a meter has gathered, for ever.

    Args:
        look: sets the gauges; called each time before.
    """
    exporter = Exporter()
    while True:
        await asyncio.sleep(EVERY_S)
        with suppress(StoreUnavailableError):  # then the gauges are as old as they are
            await look()
        exporter.tell(meter.drain())
