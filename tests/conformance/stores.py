"""The table of stores that must keep the contract, and how a test opens one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from runtime.clock import ManualClock
from runtime.store.contract import Store
from runtime.store.memory import MemoryStore

Opener = Callable[[Path, ManualClock], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def _memory(_path: Path, clock: ManualClock) -> AsyncIterator[Store]:
    store = MemoryStore(clock)
    yield store
    await store.close()


STORES: dict[str, Opener] = {
    "memory": _memory,
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
