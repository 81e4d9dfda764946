"""The feed as streams: one long poll of the store, shared by every reader here.

    store.tail --> ring of the latest events --> each reader at its own pace

A reader has a place `incarnation:cursor` and loses nothing from there on: what
is no longer in the ring is read from the store.  Only when the place is of
another incarnation (the store may have lost data) or ahead of the feed is it
told `reset` and begins at the present head.  The ring is bounded, and so is
what is held for a slow reader: nothing.

A reader that has read everything waits, and is woken by an event of its own
rooms only; one that can tell an event by a call (`tell`) is called instead.
While nobody reads, nothing is polled.  What an event looks like on the wire is
`told`'s, who may ask for which room `rooms`'.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from runtime.console.rooms import Key, wanted_keys
from runtime.console.told import Told, place_text
from runtime.errors import StoreError, StoreUnavailableError
from runtime.ids import SYSTEM
from runtime.store.contract import Store

logger = logging.getLogger(__name__)

RING_MAX: Final = 4_096
"""Events kept in memory."""
BATCH_MAX: Final = 500
"""Events a reader is given at once."""
POLL_S: Final = 20.0
RETRY_S: Final = 0.5
TURN: Final = 100
"""Events times readers in one turn of the loop: two milliseconds or so."""
START_S: Final = 1.5
"""How long the first reader waits for the store: it is answered within two seconds."""


@dataclass(frozen=True)
class Read:
    """What one read has found."""

    told: tuple[Told, ...] = ()
    reset: bool = False
    """The place was void; the reader goes on at the present head."""


class FeedHub:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._ring: deque[Told] = deque(maxlen=RING_MAX)
        self.floor = 0
        """Every event after this cursor, up to the head, is in the ring."""
        self._ready = asyncio.Event()
        self._listening: dict[Key, set[Reader]] = {}
        self._readers: set[Reader] = set()
        self._task: asyncio.Task[None] | None = None
        self.incarnation = ""
        self.head = 0

    @property
    def readers(self) -> int:
        return len(self._readers)

    @asynccontextmanager
    async def reader(
        self, organization: str, rooms: Iterable[str], place: tuple[str, int] | None = None
    ) -> AsyncIterator[Reader]:
        """A reader at a place, by default at the head; the hub runs while there is one.

        Raises:
            StoreUnavailableError: the store did not tell where the feed stands.
        """
        reader = Reader(self, organization)
        self._readers.add(reader)
        try:
            if self._task is None:
                self._task = asyncio.create_task(self._follow(), name="feed")
            self.keep_going()
            await self._started()
            reader.begin(place or (self.incarnation, self.head))
            reader.follow(rooms)
            yield reader
        finally:
            reader.follow(())
            self._readers.discard(reader)
            if not self._readers:
                await self.close()

    def keep_going(self) -> None:
        """Poll again, should a defect have ended it."""
        if self._task is not None and self._task.done():
            self._task = asyncio.create_task(self._follow(RETRY_S), name="feed")

    async def close(self) -> None:
        """Stop polling."""
        task, self._task = self._task, None
        self._ready.clear()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def listen(self, reader: Reader, keys: Iterable[Key]) -> None:
        """Wake the reader by events of these keys too."""
        for key in keys:
            self._listening.setdefault(key, set()).add(reader)

    def unlisten(self, reader: Reader, keys: Iterable[Key]) -> None:
        for key in keys:
            readers = self._listening.get(key, set())
            readers.discard(reader)
            if not readers:
                self._listening.pop(key, None)

    def from_ring(self, after: int) -> tuple[list[Told], int]:
        """At most `BATCH_MAX` events after a cursor from the floor on; and how far they go."""
        newer: list[Told] = []
        for told in reversed(self._ring):
            if told.cursor <= after:
                break
            newer.append(told)
        newer.reverse()
        batch = newer[:BATCH_MAX]
        return batch, batch[-1].cursor if len(newer) > BATCH_MAX else self.head

    async def from_store(
        self, after: int, organization: str, incarnation: str
    ) -> tuple[list[Told], int, bool]:
        """The organization's events and the system's, in one order, as far as both are read."""
        own, common = [
            await self._store.tail(after, BATCH_MAX, 0, whose, incarnation)
            for whose in (organization, SYSTEM)
        ]
        cursor = min(own.cursor, common.cursor)
        both = heapq.merge(own.entries, common.entries, key=lambda entry: entry.cursor)
        told = [Told(entry, incarnation) for entry in both if entry.cursor <= cursor]
        return told, cursor, own.reset or common.reset

    async def is_beyond(self, after: int) -> bool:
        """Whether the store itself says that there has been no such place."""
        return (await self._store.tail(after, 1, 0, SYSTEM, self.incarnation)).reset

    async def _started(self) -> None:
        try:
            async with asyncio.timeout(START_S):
                await self._ready.wait()
        except TimeoutError as error:
            raise StoreUnavailableError("the feed") from error

    async def _follow(self, wait_s: float = 0.0) -> None:
        await asyncio.sleep(wait_s)
        while True:
            try:
                await self._find_head()
                await self._poll()
            except StoreError as error:  # one that every reader would otherwise have for good
                logger.warning("the feed can't be read: %s", error, extra={"action": "feed.lost"})
                await asyncio.sleep(RETRY_S)

    async def _find_head(self) -> None:
        """Begin at the head, unless it goes on where it was."""
        incarnation = (await self._store.health()).incarnation
        if self._ready.is_set() and incarnation == self.incarnation:
            return
        feed = await self._store.tail(-1, 1, 0, None, incarnation)
        self._ring.clear()
        self.incarnation, self.head, self.floor = incarnation, feed.cursor, feed.cursor
        self._ready.set()
        for reader in self._readers:
            reader.rouse()

    async def _poll(self) -> None:
        """Follow until the store says that the place is void."""
        while True:
            feed = await self._store.tail(self.head, BATCH_MAX, POLL_S, None, self.incarnation)
            if feed.reset:
                self._ready.clear()
                return
            before, concerned = self.head, set[Reader]()
            new = [Told(entry, self.incarnation) for entry in feed.entries]
            for told in new:
                if len(self._ring) == RING_MAX:
                    self.floor = self._ring[0].cursor
                self._ring.append(told)
                for key in told.keys:
                    concerned |= self._listening.get(key, set())
            self.head = feed.cursor
            for reader in concerned:
                reader.wake(before)
            news = News(new, before, feed.cursor)
            in_turn = 0
            for reader in concerned:
                reader.hear(news)
                in_turn += len(new)
                if in_turn >= TURN:
                    in_turn = 0
                    await asyncio.sleep(0)


class News:
    """What one poll has found after the cursor `before`, up to `head`."""

    __slots__ = ("_new", "_wanted", "before", "head")

    def __init__(self, new: Sequence[Told], before: int, head: int) -> None:
        self.before = before
        self.head = head
        self._new = new
        self._wanted: dict[frozenset[Key], tuple[Told, ...]] = {}

    def wanted(self, keys: frozenset[Key]) -> tuple[Told, ...]:
        """Those that are found by any of the keys; looked for once for all who have the same."""
        found = self._wanted.get(keys)
        if found is None:
            found = self._wanted[keys] = _wanted(self._new, keys)
        return found


class Reader:
    """One stream's place in the feed; use it from one task."""

    def __init__(self, hub: FeedHub, organization: str) -> None:
        self._hub = hub
        self._organization = organization
        self.tell: Callable[[Told], bool] | None = None
        """Tells an event while `read` waits; False: it is to be read."""
        self._keys: frozenset[Key] = frozenset()
        self._incarnation, self._after = "", 0
        self._news: asyncio.Future[None] | None = None
        self._woken = False
        """There is something for it; it is going on, or about to."""

    @property
    def place(self) -> str:
        """Everything wanted up to here has been read."""
        return place_text(self._incarnation, self._after)

    def begin(self, place: tuple[str, int]) -> None:
        """Go on right after a place; whether it is void is said by the next read."""
        self._incarnation, self._after = place

    def follow(self, rooms: Iterable[str]) -> None:
        """Read these rooms instead, from the present place on."""
        keys = wanted_keys(self._organization, rooms)
        self._hub.unlisten(self, self._keys - keys)
        self._hub.listen(self, keys - self._keys)
        self._keys = keys

    async def read(self, wait_s: float) -> Read:
        """What is wanted after the place, at most `BATCH_MAX`; waits up to `wait_s` for it.

        Nothing is also answered after `wake`, and when only others' events have passed.

        Raises:
            StoreUnavailableError: the place is as it was.
        """
        hub = self._hub
        hub.keep_going()
        if self._is_foreign:
            return self._reset()
        if self._after < hub.floor:
            return await self._read_store()
        # a client that comes from another process may have seen more than has come here yet
        if self._after > hub.head and await hub.is_beyond(self._after):
            return self._reset()
        if self._after >= hub.head and not self._is_foreign:  # as it may have become meanwhile
            await self._wait(wait_s)
        if self._is_foreign or not hub.floor <= self._after <= hub.head:
            return Read()  # it moved on meanwhile: the next read sees to it
        told, self._after = hub.from_ring(self._after)
        return self._wanted(told)

    def wake(self, at: int) -> None:
        """There is something for it after the cursor `at`, and nothing between its place and that.

        It goes on with the next `rouse`.
        """
        if self._news is not None and not self._woken:
            self._woken = True
            self._after = max(self._after, at)

    def hear(self, news: News) -> None:
        """Tell what has come, or end its wait."""
        waits = self._news
        if waits is None or waits.done():
            return
        tell = self.tell
        if tell is None or self._after != news.before:
            self.rouse()
            return
        for told in news.wanted(self._keys):
            if not tell(told):
                self.rouse()
                return
            self._after = told.cursor
        self._after, self._woken = news.head, False

    def rouse(self) -> None:
        """End its wait, if it waits."""
        if self._news is not None and not self._news.done():
            self._woken = True
            self._news.set_result(None)

    def nudge(self) -> None:
        """The same; what has come meanwhile is not wanted, or it would have been woken."""
        if not self._is_foreign:
            self.wake(self._hub.head)
        self.rouse()

    async def _wait(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._news, self._woken = loop.create_future(), False
        timer = loop.call_later(wait_s, self.nudge)
        try:
            await self._news
        finally:
            timer.cancel()
            self._news = None

    @property
    def _is_foreign(self) -> bool:
        return self._incarnation != self._hub.incarnation

    def _reset(self) -> Read:
        self._incarnation, self._after = self._hub.incarnation, self._hub.head
        return Read(reset=True)

    async def _read_store(self) -> Read:
        told, cursor, reset = await self._hub.from_store(
            self._after, self._organization, self._incarnation
        )
        if reset:
            return self._reset()
        self._after = cursor
        return self._wanted(told)

    def _wanted(self, told: Iterable[Told]) -> Read:
        return Read(_wanted(told, self._keys))


def _wanted(told: Iterable[Told], keys: frozenset[Key]) -> tuple[Told, ...]:
    return tuple([one for one in told if not one.keys.isdisjoint(keys)])


__all__ = ["FeedHub", "Read", "Reader"]
