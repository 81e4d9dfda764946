"""Claims: which agents a host takes at the store, and which it gives up.

A claim may land although its answer is lost.  Then the host holds agents that
it does not know of, and nobody else may take them while its lease is live: it
gives up all that it holds and has not brought to life, so that the next claim
brings them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container
from itertools import islice
from typing import Protocol

from runtime.errors import StoreUnavailableError
from runtime.patience import patiently
from runtime.store.contract import BATCH_MAX, Activation, Store, StoredMessage


class Holder(Protocol):
    """Whose claims they are."""

    store: Store
    owner: str


class Claims:
    """Of one host. Whoever changes what is held does it under `lock`."""

    def __init__(self, holder: Holder, living: Container[str]) -> None:
        """Args: living: the agents that live in the host."""
        self.lock = asyncio.Lock()
        self._holder = holder
        self._living = living
        self._wanted: dict[str, None] = {}
        self._news = asyncio.Event()
        self.early: dict[str, list[StoredMessage]] = {}
        """Messages a poll has brought for agents that are claimed but not yet live here."""

    def want(self, agent: str) -> None:
        """Something was sent to an agent that does not live here: claim it by its name."""
        self._wanted[agent] = None
        self._news.set()

    async def wanted(self, limit: int) -> list[str]:
        """Wait for agents to claim by name."""
        while not self._wanted:
            self._news.clear()
            await self._news.wait()
        these = list(islice(self._wanted, limit))
        for agent in these:
            del self._wanted[agent]
        return these

    async def take(self, limit: int, agents: list[str] | None) -> list[Activation]:
        """Claim agents, by name or whatever is ready, however long that takes."""
        while True:
            try:
                return await self._holder.store.claim(self._holder.owner, limit, agents)
            except StoreUnavailableError:
                await patiently(self._release_unknown)

    async def release(self, agents: list[str]) -> None:
        """Give agents up; what is pending for them makes them ready for anybody."""
        await patiently(self._holder.store.release, self._holder.owner, agents)
        for agent in agents:
            self.early.pop(agent, None)

    async def _release_unknown(self) -> None:
        """A claim's answer was lost: give up what is held without living here."""
        store, owner, after = self._holder.store, self._holder.owner, 0
        while True:
            poll = await store.poll(owner, after, BATCH_MAX, 0.0)
            held = {message.recipient for message in poll.messages}
            await store.release(owner, sorted(one for one in held if one not in self._living))
            if not poll.messages:  # a short page may have been cut by its size
                return
            after = poll.cursor

    async def release_orphans(self) -> None:
        """Give up agents whose messages a poll brings and which nobody has brought to life.

        What a claim under way brings to life is none: the lock waits for it.
        """
        if self.early:
            async with self.lock:
                if self.early:
                    await self.release(list(self.early))
