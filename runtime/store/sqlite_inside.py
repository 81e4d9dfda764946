"""The store for one who lives in its process, and hears of a transaction while it is open.

What a transaction has for it is told before COMMIT, and what it commits within a
few turns of the loop is a part of that transaction: one fsync for what came and
for what that led to (decision 18).  This is no answer before its time: an end of
the process ends both, its own commits are answered after COMMIT as everybody's
are, and nobody else hears anything before.

A transaction of which it has heard may be undone after all (a full disk).  Then it
knows of what never happened: each of its calls raises `UndoneError` from there on,
and who it was begins anew from what the store says.

Its other calls let everybody else have a turn first: the store answers a read at
once, and a loop of them (all schedules, all open jobs) would leave the sockets unheard.
While a transaction is held open for it they don't, since everybody waits for it then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from runtime.errors import UndoneError
from runtime.store.contract import Commit, Committed, Document, Poll, Refused, Store
from runtime.store.parking import Parking
from runtime.store.rules import check_many, page_limit
from runtime.store.sqlite_book import Book
from runtime.store.sqlite_transactions import Transactions
from runtime.store.through import Through

T = TypeVar("T")


class InsideStore(Through):
    """The contract over an open SQLite store; made by `SqliteStore.inside`."""

    def __init__(
        self,
        store: Store,
        transactions: Transactions,
        look: Callable[[Book, str, int, int], tuple[Poll, bool]],
    ) -> None:
        """`look` is what a poll does: of an owner, beyond a seq, so many messages."""
        super().__init__(store)
        self._transactions = transactions
        self._look = look
        self._parking = Parking()
        self._undone = False

    # what transactions tell

    @property
    def idle(self) -> bool:
        return self.is_awaited("poll")

    def is_awaited(self, key: Hashable) -> bool:
        return self._parking.is_awaited(key)

    def hear(self, rings: Iterable[Hashable]) -> bool:
        """What an open transaction has changed; whether there is anything to be made of it."""
        heard = [  # "poll" is rung for work that anybody may claim
            key for key in rings if key != "poll" and self.is_awaited(key)
        ]
        self.ring(heard)
        return bool(heard)

    def ring(self, rings: Iterable[Hashable]) -> None:
        for key in rings:
            self._parking.ring(key)

    def undo(self) -> None:
        """It has heard of what is not so, or another has taken its place."""
        self._undone = True
        self._parking.ring_all()

    def end(self) -> None:
        """The store is closed."""
        self._parking.close()

    # what is called

    async def _call(self, call: Awaitable[T], wait_s: float = 0.0) -> T:
        await asyncio.sleep(0)
        answer = await call
        self._check()
        return answer

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        self._check()
        return await self._transactions.commit(commits, inside=True)

    async def poll(self, owner: str, after: int, limit: int, wait_s: float) -> Poll:
        limit = page_limit(limit)

        async def look() -> tuple[Poll, bool]:
            return self._read(lambda book: self._look(book, owner, after, limit))

        await asyncio.sleep(0)
        await self._transactions.fire_due()
        return await self._parking.until(("poll", ("poll", owner)), wait_s, look)

    async def get(self, collection: str, key: str) -> Document | None:
        await self._let_others()
        return self._read(lambda book: book.documents.get(collection, key))

    async def get_many(self, collection: str, keys: Sequence[str]) -> list[Document]:
        check_many(keys)
        await self._let_others()
        return self._read(lambda book: book.documents.get_many(collection, keys))

    async def _let_others(self) -> None:
        """Let everybody else have a turn, unless they wait for this one to decide."""
        if not self._transactions.is_held:
            await asyncio.sleep(0)

    def _read(self, look: Callable[[Book], T]) -> T:
        self._check()
        return self._transactions.read(look)

    def _check(self) -> None:
        if self._undone:
            raise UndoneError
        self._parking.check_open()
