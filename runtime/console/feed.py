"""The feed as a stream: one long poll of the store, shared by every reader here.

    store.tail --> ring of the latest events --> each reader at its own pace

A reader has a place `incarnation:cursor` and loses nothing from there on: what
is no longer in the ring is read from the store.  Only when the place is of
another incarnation (the store may have lost data) or ahead of the feed is it
told `reset` and begins at the present head.  The ring is bounded, and so is
what is held for a slow reader: nothing.

Events of `system` in the room `COMMON` are everybody's: each reader gets them
among its own, so nothing of an organization may ever be in one.

While nobody reads, nothing is polled.  Turning entries into bytes on the wire
is `runtime.console.events`.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from runtime.errors import StoreUnavailableError
from runtime.ids import SYSTEM
from runtime.store.contract import Feed, FeedEntry, Store

logger = logging.getLogger(__name__)

RING_MAX: Final = 4_096
"""Events kept in memory."""
BATCH_MAX: Final = 500
"""Events a reader is given at once."""
POLL_S: Final = 20.0
RETRY_S: Final = 0.5
COMMON: Final = "scheduler"
"""The room whose events of `system` every organization is told."""
START_S: Final = 2.0
"""How long the first reader waits for the store."""


class FeedHub:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._ring: deque[FeedEntry] = deque(maxlen=RING_MAX)
        self._floor = 0
        """Every event after this cursor, up to the head, is in the ring."""
        self._news = asyncio.Event()
        self._ready = asyncio.Event()
        self._readers = 0
        self._task: asyncio.Task[None] | None = None
        self.incarnation = ""
        self.head = 0

    @property
    def readers(self) -> int:
        return self._readers

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[None]:
        """Keep the hub running; the first reader starts it, the last one stops it.

        Raises:
            StoreUnavailableError: the store did not tell where the feed stands.
        """
        self._readers += 1
        try:
            if self._task is None:
                self._task = asyncio.create_task(self._follow(), name="feed")
            await self._started()
            yield
        finally:
            self._readers -= 1
            if self._readers == 0:
                await self.close()

    async def close(self) -> None:
        """Stop polling."""
        task, self._task = self._task, None
        self._ready.clear()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def read(self, after: int, organization: str, incarnation: str, wait_s: float) -> Feed:
        """The organization's events after a place; waits up to `wait_s` for one.

        `reset`: the place is void; go on from the answer's cursor under
        `self.incarnation`.
        """
        if incarnation != self.incarnation or after > self.head:
            return Feed((), self.head, True)
        if after < self._floor:
            return await self._from_store(after, organization, incarnation)
        if after == self.head:
            await self._wait(wait_s)
        if incarnation != self.incarnation or after < self._floor:
            return Feed((), after, False)  # it moved on meanwhile: the next read sees to it
        return self._from_ring(after, organization)

    def _from_ring(self, after: int, organization: str) -> Feed:
        newer: list[FeedEntry] = []
        for entry in reversed(self._ring):
            if entry.cursor <= after:
                break
            newer.append(entry)
        newer.reverse()
        batch = newer[:BATCH_MAX]
        cursor = batch[-1].cursor if len(newer) > BATCH_MAX else self.head
        return Feed(tuple(one for one in batch if _may_see(organization, one)), cursor, False)

    async def _from_store(self, after: int, organization: str, incarnation: str) -> Feed:
        """The organization's events and the system's, in one order, as far as both are read."""
        own, common = [
            await self._store.tail(after, BATCH_MAX, 0, whose, incarnation)
            for whose in (organization, SYSTEM)
        ]
        cursor = min(own.cursor, common.cursor)
        both = heapq.merge(own.entries, common.entries, key=lambda entry: entry.cursor)
        entries = [one for one in both if one.cursor <= cursor and _may_see(organization, one)]
        return Feed(tuple(entries), cursor, own.reset or common.reset)

    async def _wait(self, wait_s: float) -> None:
        news = self._news
        try:
            async with asyncio.timeout(wait_s):
                await news.wait()
        except TimeoutError:
            pass

    async def _started(self) -> None:
        try:
            async with asyncio.timeout(START_S):
                await self._ready.wait()
        except TimeoutError as error:
            raise StoreUnavailableError("the feed") from error

    async def _follow(self) -> None:
        while True:
            try:
                await self._find_head()
                await self._poll()
            except StoreUnavailableError as error:
                logger.warning("the feed can't be read: %s", error, extra={"action": "feed.lost"})
                await asyncio.sleep(RETRY_S)

    async def _find_head(self) -> None:
        """Begin at the head, unless it goes on where it was."""
        incarnation = (await self._store.health()).incarnation
        if self._ready.is_set() and incarnation == self.incarnation:
            return
        feed = await self._store.tail(-1, 1, 0, None, incarnation)
        self._ring.clear()
        self.incarnation, self.head, self._floor = incarnation, feed.cursor, feed.cursor
        self._ready.set()
        self._wake()

    async def _poll(self) -> None:
        """Follow until the store says that the place is void."""
        while True:
            feed = await self._store.tail(self.head, BATCH_MAX, POLL_S, None, self.incarnation)
            if feed.reset:
                self._ready.clear()
                return
            for entry in feed.entries:
                if len(self._ring) == RING_MAX:
                    self._floor = self._ring[0].cursor
                self._ring.append(entry)
            self.head = feed.cursor
            if feed.entries:
                self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _may_see(organization: str, entry: FeedEntry) -> bool:
    common = entry.organization == SYSTEM and COMMON in entry.rooms
    return common or entry.organization == organization


__all__ = ["FeedHub"]
