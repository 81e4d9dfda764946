"""The stores that must keep the contract, and how one is opened to be tried."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

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
    sqlite_transactions,
)
from runtime.store.contract import Store
from runtime.store.memory import MemoryStore
from runtime.store.redis import RedisStore
from runtime.store.remote import RemoteStore
from runtime.store.server import StoreServer
from runtime.store.sqlite import SqliteStore

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
async def _inside(path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    async with _sqlite(path, clock) as store:
        assert isinstance(store, SqliteStore)
        yield store.inside()


@asynccontextmanager
async def _socket(path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    async with _sqlite(path, clock) as served:
        server = StoreServer(served, path / "store.sock")
        await server.start()
        store = RemoteStore(path / "store.sock")
        yield store
        await store.close()
        await server.close()


def openers(redis_url: Callable[[], str]) -> dict[str, Opener]:
    """By the store's name; the server of `redis_url` stays, a prefix says whose data it is."""

    @asynccontextmanager
    async def redis(path: Path, clock: ManualClock) -> AsyncIterator[Store]:
        prefix = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        store = await RedisStore.open(redis_url(), clock, prefix=prefix)
        yield store
        await store.close()

    return {
        "memory": _memory, "sqlite": _sqlite, "inside": _inside, "socket": _socket, "redis": redis,
    }  # fmt: skip


DURABLE = {"sqlite", "inside", "socket", "redis"}
"""Stores that keep everything when they are opened again on the same path."""
FORGETTING = {"memory", "sqlite", "socket", "redis"}
"""Stores that have the verbs of `Upkeep`."""


BOUNDS = (
    (roster, "RECENT_MAX", 8),
    (sqlite_inbox, "SETTLE_EVERY", 4),
    (sqlite_agents, "AGENTS_CACHED_MAX", 2),
    (sqlite_transactions, "GROUP_COMMITS_MAX", 2),
    (redis_commits, "SCRIPT_COMMITS_MAX", 2),
    (redis_looks, "POLL_AGENTS_MAX", 1),
    (redis_looks, "FIRE_MAX", 1),
    (redis_looks, "EVENTS_MAX", 2),
    (redis_owners, "FIRE_MAX", 1),
    (redis_owners, "CLAIM_ROWS_MAX", 2),
    (redis_owners, "PART_BYTES_MAX", 100),
    (redis_owners, "RELEASE_MAX", 1),
    (redis_reads, "STEPS_MAX", 1),
    (redis_reads, "WALK_MAX", 1),
    (redis_reads, "PART_BYTES_MAX", 100),
    (redis_upkeep, "LOOKS_MAX", 2),
)
"""Made small, so that a few messages meet both sides of each."""


class Opened:
    """A store under test that can be closed and opened again."""

    def __init__(self, opener: Opener, durable: bool, path: Path, clock: ManualClock) -> None:
        self.durable = durable
        self._open = partial(opener, path, clock)

    async def start(self) -> Store:
        self._bounds = ExitStack()
        for module, name, value in BOUNDS:
            self._bounds.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        self._context = self._open()
        self.store = await self._context.__aenter__()
        return self.store

    async def stop(self) -> None:
        await self._context.__aexit__(None, None, None)
        self._bounds.close()

    async def reopen(self) -> Store:
        await self.stop()
        return await self.start()
