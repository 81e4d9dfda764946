"""The table of stores that must keep the contract, and how a test opens one."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from unittest.mock import patch

from runtime.clock import ManualClock
from runtime.store import (
    redis_commits,
    redis_looks,
    redis_owners,
    redis_reads,
    redis_upkeep,
    roster,
    sqlite_agents,
    sqlite_inbox,
    sqlite_worker,
)
from runtime.store.contract import Store
from runtime.store.memory import MemoryStore
from runtime.store.redis import RedisStore
from runtime.store.remote import RemoteStore
from runtime.store.server import StoreServer
from runtime.store.sqlite import SqliteStore
from tests.redis_server import shared_server

Opener = Callable[[Path, ManualClock], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def _memory(_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    store = MemoryStore(clock)
    yield store
    await store.close()


@asynccontextmanager
async def _sqlite(path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    store = await SqliteStore.open(path / "store.db", clock, boot_id="this boot")
    yield store
    await store.close()


@asynccontextmanager
async def _socket(path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    async with _sqlite(path, clock) as served:
        server = StoreServer(served, path / "store.sock")
        await server.start()
        store = RemoteStore(path / "store.sock")
        yield store
        await store.close()
        await server.close()


@asynccontextmanager
async def _redis(path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    """The server stays; the prefix says which path's data it is."""
    prefix = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    store = await RedisStore.open(shared_server().url, clock, prefix=prefix)
    yield store
    await store.close()


STORES: dict[str, Opener] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "socket": _socket,
    "redis": _redis,
}
DURABLE = {"sqlite", "socket", "redis"}
"""Stores that keep everything when they are opened again on the same path."""
FORGETTING = {"memory", "sqlite", "socket", "redis"}
"""Stores that have the verbs of `Upkeep`."""


BOUNDS = (
    (roster, "RECENT_MAX", 8),
    (sqlite_inbox, "SETTLE_EVERY", 4),
    (sqlite_agents, "AGENTS_CACHED_MAX", 2),
    (sqlite_worker, "GROUP_COMMITS_MAX", 2),
    (redis_commits, "SCRIPT_COMMITS_MAX", 2),
    (redis_looks, "POLL_AGENTS_MAX", 1),
    (redis_looks, "FIRE_MAX", 1),
    (redis_looks, "EVENTS_MAX", 2),
    (redis_owners, "FIRE_MAX", 1),
    (redis_owners, "CLAIM_ROWS_MAX", 2),
    (redis_owners, "RELEASE_MAX", 1),
    (redis_reads, "STEPS_MAX", 1),
    (redis_reads, "WALK_MAX", 1),
    (redis_reads, "PART_BYTES_MAX", 100),
    (redis_upkeep, "LOOKS_MAX", 2),
)
"""Made small, so that a few messages meet both sides of each."""


class Opened:
    """A store under test that can be closed and opened again."""

    def __init__(self, name: str, path: Path, clock: ManualClock) -> None:
        self.name = name
        self.durable = name in DURABLE
        self._open = lambda: STORES[name](path, clock)

    async def start(self) -> Store:
        self._bounds = ExitStack()
        for module, name, value in BOUNDS:
            self._bounds.enter_context(patch.object(module, name, value))
        self._context = self._open()
        self.store = await self._context.__aenter__()
        return self.store

    async def stop(self) -> None:
        await self._context.__aexit__(None, None, None)
        self._bounds.close()

    async def reopen(self) -> Store:
        await self.stop()
        return await self.start()
