"""How much work there is and how long it takes, as measured: what a wait is told from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.console.caller import Caller


@dataclass(frozen=True)
class ServiceTime:
    """How long jobs of one kind took."""

    count: int
    mean_s: float


@dataclass(frozen=True)
class Load:
    """Jobs of every organization: the queue is one."""

    pending: int
    running: int
    service_times: Mapping[str, ServiceTime]
    """By kind of agent; as the scheduler measured them."""


async def current_load(caller: Caller) -> Load:
    """The load as of now; it tells numbers only, nothing of whose jobs they are."""
    store = caller.console.store
    pending, running, stats = await asyncio.gather(
        store.count("job", None, ["status=pending"]),
        store.count("job", None, ["status=running"]),
        store.get("stats", "service_times"),
    )
    measured = json.loads(stats.body) if stats is not None else {}
    times = {
        kind: ServiceTime(int(seen["count"]), float(seen["meanS"]))
        for kind, seen in measured.items()
    }
    return Load(pending, running, times)
