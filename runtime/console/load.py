"""How much work there is and how long it takes: what a wait, or a refusal, is told from.

Nothing here needs to be exact, and asking the store again for each request
costs more than the request's own commit.  So what was found is told again for
`FRESH_S`, and each process counts what it has accepted itself since, and what it
is accepting; of what others are accepting it knows nothing before it is there.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from runtime.client import Client
from runtime.clock import Clock
from runtime.store.contract import Store

FRESH_S: Final = 1.0
"""How long an answer of the store is told again."""
ORGANIZATIONS_MAX: Final = 1_024
"""Whose waiting work is remembered; the one asked for longest ago is forgotten first."""
WAITING: Final = ("queued", "pending")
"""Statuses of an issue that waits for Troupe."""


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


class Gauge:
    """What this process knows of the load; one for all its requests."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._load: Load | None = None
        self._read_ms = 0
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()

    async def load(self) -> Load:
        """As of `FRESH_S` ago or later; it tells numbers only, nothing of whose jobs they are."""
        if self._load is None or not self._fresh(self._read_ms):
            read_ms = self._clock.now_ms()
            self._load, self._read_ms = await _read(self._store), read_ms
        return self._load

    @asynccontextmanager
    async def place(self, client: Client, limit: int) -> AsyncIterator[bool]:
        """Whether fewer than `limit` issues of the organization wait; if so one is kept free.

        A block that ends well has accepted an issue, which waits from then on.
        Counted anew from half of the limit on; below it no more can have come
        through other processes meanwhile than that.
        """
        known = self._known(client.organization)
        if known.read_ms is None or not self._fresh(known.read_ms) or 2 * known.count >= limit:
            await self._count(client, known)
        if known.count >= limit:
            yield False
            return
        known.in_flight += 1  # nothing was awaited since it was found free, so nobody else has it
        try:
            yield True
            known.accepted += 1
        finally:
            known.in_flight -= 1

    def _known(self, organization: str) -> _Waiting:
        known = self._waiting.setdefault(organization, _Waiting())
        self._waiting.move_to_end(organization)
        while len(self._waiting) > ORGANIZATIONS_MAX:
            self._waiting.popitem(last=False)
        return known

    async def _count(self, client: Client, known: _Waiting) -> None:
        read_ms, accepted = self._clock.now_ms(), known.accepted
        found = await asyncio.gather(
            *(client.count("issue", {"status": status}) for status in WAITING)
        )
        known.read_ms, known.others = read_ms, sum(found) - accepted

    def _fresh(self, read_ms: int) -> bool:
        # a clock that was set back makes it old, not young for ever
        return 0 <= self._clock.now_ms() - read_ms < FRESH_S * 1000


@dataclass
class _Waiting:
    """Issues of one organization."""

    read_ms: int | None = None
    others: int = 0
    """What was counted without those of `accepted`; less than 0 when these are done."""
    accepted: int = 0
    """By this process, ever."""
    in_flight: int = 0
    """That it is accepting."""

    @property
    def count(self) -> int:
        return self.others + self.accepted + self.in_flight


async def _read(store: Store) -> Load:
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
