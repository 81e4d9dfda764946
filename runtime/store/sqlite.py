"""The embedded store: the whole contract on one SQLite file.

    file          sqlite_file          one locked connection, its durability, the incarnation
    transactions  sqlite_transactions  group commit, failures
    book          sqlite_book          tables and memory, judged by `rules`, held by `roster`
    inside        sqlite_inside        for one who lives in the process: the scheduler
    here                               the contract's methods, and who waits

Everything happens on the event loop, so nothing happens while a transaction is
being written.

Invariant: nothing is answered, and nobody is woken, before the transaction
that it rests on is durable; but for who lives inside, and ends with the process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from runtime.clock import Clock
from runtime.errors import StoreError
from runtime.store.contract import (
    Activation,
    Commit,
    Committed,
    Document,
    Feed,
    Health,
    JournalEvent,
    Poll,
    Refused,
    Step,
    StoredMessage,
    Swept,
)
from runtime.store.copies import Copied
from runtime.store.parking import Alarm, Parking
from runtime.store.rules import (
    check_limit,
    check_many,
    check_purge,
    page_limit,
)
from runtime.store.sqlite_book import Book
from runtime.store.sqlite_copy import Copy
from runtime.store.sqlite_file import Durability, StoreFile, machine_boot_id, open_file
from runtime.store.sqlite_inside import InsideStore
from runtime.store.sqlite_transactions import Transactions

T = TypeVar("T")

EXIT_FATAL: Final = 70
"""Exit code of a process whose store failed: EX_SOFTWARE."""


def _end_process() -> None:
    os._exit(EXIT_FATAL)


class SqliteStore:
    """Open it with `SqliteStore.open`."""

    def __init__(self, file: StoreFile, clock: Clock, on_fatal: Callable[[], None]) -> None:
        self._clock = clock
        self._parking = Parking()
        self._alarm = Alarm(clock, self._go_off)
        self._transactions = Transactions(
            file, clock, self._parking, on_fatal, on_end=self._set_alarm
        )
        self._waking: asyncio.Task[None] | None = None
        self._event_ms: int | None = None
        """What the alarm was last set for."""
        self._lapses = 0
        """Those noticed by then."""
        self._copy: Copy | None = None
        """The latest copy that was asked for."""
        self._copying: asyncio.Task[None] | None = None
        self._set_alarm()

    @classmethod
    async def open(
        cls,
        path: Path,
        clock: Clock,
        *,
        durability: Durability = "power loss",
        boot_id: str | None = None,
        restored: bool = False,
        random_bytes: Callable[[int], bytes] = os.urandom,
        on_fatal: Callable[[], None] = _end_process,
    ) -> SqliteStore:
        """Open the store at `path`, creating it if need be, on the running loop.

        Args:
            durability: what is never lost; `process kill` saves the fsync of each commit.
            boot_id: names the machine's present boot; the machine's own by default.
            restored: the file is a backup: fence everybody, void all cursors.
            on_fatal: called after an I/O error; must not return.

        Raises:
            StoreLockedError: another process has it open.
            StoreError: it can't be opened, or not as durably as was asked.
        """
        boot = machine_boot_id() if boot_id is None else boot_id
        file = open_file(path, durability, boot, restored, random_bytes)
        try:
            return cls(file, clock, on_fatal)
        except BaseException:
            file.close()
            raise

    def _set_alarm(self) -> None:
        """Let it go off when something changes by itself; once, even if nothing comes of it."""
        event_ms = self._transactions.book.next_event_ms()
        if event_ms != self._event_ms and not self._parking.closed:
            self._event_ms = event_ms
            self._alarm.set(event_ms)

    def _go_off(self) -> None:
        """Something may have changed by itself: whoever waits for it looks again."""
        if self._event_ms is not None and self._clock.now_ms() < self._event_ms:
            self._alarm.set(self._event_ms)
        else:
            self._waking = asyncio.create_task(self._wake())

    async def _wake(self) -> None:
        with suppress(StoreError):  # the log says so, and the next poll tries it again
            await self._write(Book.wake)

    async def _write(self, run: Callable[[Book], T]) -> T:
        return await self._transactions.write(run)

    async def _read(self, look: Callable[[Book], T]) -> T:
        await self._transactions.settled()
        return self._transactions.read(look)

    async def _watch(
        self, keys: tuple[Hashable, ...], look: Callable[[Book], tuple[T, bool]], wait_s: float
    ) -> T:
        return await self._parking.until(keys, wait_s, lambda: self._read(look))

    def inside(self) -> InsideStore:
        """The store for one who lives in this process; it ends who had it before."""
        inside = InsideStore(self, self._transactions, self._look)
        self._transactions.let_in(inside)
        return inside

    # writing

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        return await self._transactions.commit(commits)

    async def register(self, owner: str, name: str, lease_s: float) -> str:
        return await self._write(lambda book: book.register(owner, name, lease_s))

    async def renew(self, owner: str, lease_s: float) -> bool:
        return await self._write(lambda book: book.renew(owner, lease_s))

    async def claim(
        self, owner: str, limit: int, agents: Sequence[str] | None = None
    ) -> list[Activation]:
        return await self._write(lambda book: book.claim(owner, limit, agents))

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        await self._write(lambda book: book.release(owner, agents))

    # waiting

    async def poll(self, owner: str, after: int, limit: int, wait_s: float) -> Poll:
        limit = page_limit(limit)
        await self._transactions.fire_due()
        keys = ("poll", ("poll", owner))
        return await self._watch(keys, lambda book: self._look(book, owner, after, limit), wait_s)

    def _look(self, book: Book, owner: str, after: int, limit: int) -> tuple[Poll, bool]:
        """A poll's look; a lapse that it notices no longer keeps the alarm from what comes next."""
        found = book.look(owner, after, limit)
        if book.roster.lapses != self._lapses:
            self._lapses = book.roster.lapses
            self._set_alarm()
        return found

    async def outcome(self, agent: str, message_id: str, wait_s: float) -> StoredMessage | None:
        def look(book: Book) -> tuple[StoredMessage | None, bool]:
            known = book.known(agent)
            message = book.inbox.one(known.row, message_id) if known else None
            return message, message is None or message.status != "pending"

        keys = (("outcome", agent, message_id),)
        return await self._watch(keys, look, wait_s)

    async def tail(
        self,
        after: int,
        limit: int,
        wait_s: float,
        organization: str | None = None,
        incarnation: str | None = None,
    ) -> Feed:
        limit = page_limit(limit)
        start: tuple[int, bool] | None = None

        def look(book: Book) -> tuple[Feed, bool]:
            nonlocal start
            if start is None:
                start = book.feed.start(after, incarnation, book.incarnation)
            first, reset = start
            feed = book.feed.look(first, limit, organization, reset)
            return feed, bool(feed.entries) or reset

        return await self._watch(("feed",), look, wait_s)

    # reading

    async def inbox(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        return await self._read(lambda book: book.waiting(agent, after, page_limit(limit)))

    async def history(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        def read(book: Book) -> list[StoredMessage]:
            known = book.known(agent)
            return book.inbox.history(known.row, after, page_limit(limit)) if known else []

        return await self._read(read)

    async def journal(self, agent: str, after: int, limit: int) -> list[JournalEvent]:
        def read(book: Book) -> list[JournalEvent]:
            known = book.known(agent)
            return book.journals.page(known.row, after, page_limit(limit)) if known else []

        return await self._read(read)

    async def steps(self, job: str) -> list[Step]:
        return await self._read(lambda book: book.steps.of_job(job))

    async def get(self, collection: str, key: str) -> Document | None:
        return await self._read(lambda book: book.documents.get(collection, key))

    async def get_many(self, collection: str, keys: Sequence[str]) -> list[Document]:
        check_many(keys)
        return await self._read(lambda book: book.documents.get_many(collection, keys))

    async def list_documents(
        self,
        collection: str,
        organization: str | None = None,
        terms: Sequence[str] = (),
        after: str | None = None,
        limit: int = 100,
        descending: bool = True,
    ) -> list[Document]:
        limit = page_limit(limit)
        return await self._read(
            lambda book: book.documents.page(
                collection, organization, terms, after, limit, descending
            )
        )

    async def count(
        self, collection: str, organization: str | None = None, terms: Sequence[str] = ()
    ) -> int:
        return await self._read(lambda book: book.documents.count(collection, organization, terms))

    # upkeep

    async def prune(self, before_ms: int, limit: int, ended: Sequence[str] = ()) -> Swept:
        check_limit(limit, ended)
        return await self._write(lambda book: book.prune(before_ms, limit, ended))

    async def purge(self, organization: str, limit: int) -> Swept:
        check_purge(organization, limit)
        return await self._write(lambda book: book.purge(organization, limit))

    async def backup(self, token: str, path: str, wait_s: float) -> Copied:
        """See `backup.Copies`."""
        self._parking.check_open()
        copy = self._copy
        if copy is None or copy.token != token:
            if copy is not None and not copy.ended:
                raise StoreError(f"a copy to {copy.path} is under way")
            copy = self._copy = Copy(token, Path(path))
            self._copying = asyncio.create_task(
                copy.run(self._transactions.file.connection, self._transactions.settled)
            )
        if self._copying is not None:
            await asyncio.wait((self._copying,), timeout=wait_s)
        self._parking.check_open()
        return copy.asked()

    async def health(self) -> Health:
        transactions, file = self._transactions, self._transactions.file
        details = await self._read(lambda book: file.details() | book.details())
        return Health(
            "sqlite",
            file.durability,
            file.incarnation,
            transactions.tally.accepted,
            dict(transactions.tally.refused),
            details,
            await self._read(Book.alive),
        )

    async def close(self) -> None:
        if self._parking.closed:
            return
        self._parking.close()
        self._alarm.cancel()
        if self._copying is not None:
            self._copying.cancel()
            await asyncio.wait((self._copying,))
        self._transactions.close()
        if self._waking is not None:
            await self._waking
