"""The table of stores that must keep the contract, and how a test opens one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from runtime.clock import ManualClock
from runtime.store.contract import Store
from runtime.store.memory import MemoryStore
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
async def _socket(path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    async with _sqlite(path, clock) as served:
        server = StoreServer(served, path / "store.sock")
        await server.start()
        store = RemoteStore(path / "store.sock")
        yield store
        await store.close()
        await server.close()


STORES: dict[str, Opener] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "socket": _socket,
}
DURABLE = {"sqlite", "socket"}
"""Stores that keep everything when they are opened again on the same path."""


class Opened:
    """A store under test that can be closed and opened again."""

    def __init__(self, name: str, path: Path, clock: ManualClock) -> None:
        self.name = name
        self.durable = name in DURABLE
        self._open = lambda: STORES[name](path, clock)

    async def start(self) -> Store:
        self._context = self._open()
        self.store = await self._context.__aenter__()
        return self.store

    async def stop(self) -> None:
        await self._context.__aexit__(None, None, None)

    async def reopen(self) -> Store:
        await self.stop()
        return await self.start()
