"""The embedded store and the scheduler beside it, in one process (decision 17).

The scheduler calls the store from inside; everybody else over its socket, or from
another node by calls of the actor that keeps it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from runtime.clock import Clock
from runtime.cluster import metering, stores
from runtime.cluster.settings import ClusterSettings
from runtime.metrics import Meter
from runtime.store import wire
from runtime.store.contract import Store
from runtime.store.server import StoreServer
from runtime.store.sqlite import SqliteStore

logger = logging.getLogger(__name__)

AGAIN_S: Final = 1.0
"""From the end of a scheduler to the next one."""


class Embedded:
    """Create and `await run(schedule)`; `answer` waits until the store is open."""

    def __init__(self, settings: ClusterSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._opened: asyncio.Future[SqliteStore] = asyncio.get_running_loop().create_future()

    async def run(self, schedule: Callable[[Store], Awaitable[None]]) -> None:
        """Open the store, serve it, forget what is over, and schedule; until cancelled.

        Args:
            schedule: works until it fails, whatever it fails with: then it is called again,
                to read the truth anew, and the store goes on meanwhile.

        Raises:
            StoreLockedError: another process has the store open.
            StoreError: it can't be opened.
        """
        settings = self._settings
        store = await SqliteStore.open(settings.directory.database, self._clock)
        seen = stores.watched(settings, store)
        self._opened.set_result(store)
        try:
            async with asyncio.TaskGroup() as duties:
                duties.create_task(StoreServer(store, settings.directory.socket, seen).serve())
                duties.create_task(_meter(store))
                duties.create_task(stores.retention(settings, store, self._clock).run())
                duties.create_task(self._for_ever(schedule, store))
        finally:
            await store.close()

    async def answer(self, method: str, payload: bytes) -> bytes:
        """A call of the contract, encoded; see `runtime.store.wire`."""
        return await wire.answer(await asyncio.shield(self._opened), method, payload)

    async def _for_ever(
        self, schedule: Callable[[Store], Awaitable[None]], store: SqliteStore
    ) -> None:
        while True:
            try:
                await schedule(stores.watched(self._settings, store.inside()))
            except Exception:  # whatever it was: the store is everybody's, and the truth is in it
                logger.critical(
                    "the scheduler has ended; another follows",
                    exc_info=True,
                    extra={"action": "scheduler.ended"},
                )
            await asyncio.sleep(AGAIN_S)


async def _meter(store: SqliteStore) -> None:
    meter, commits, refused = Meter(), 0, dict[str, int]()

    async def look() -> None:
        nonlocal commits, refused
        health = await store.health()
        meter.count("troupe_store_commits", health.commits - commits)
        for reason, count in health.refused.items():
            meter.count("troupe_store_refused", count - refused.get(reason, 0), reason)
        commits, refused = health.commits, dict(health.refused)

    await metering.export(meter, look)
