"""The embedded store: the whole contract on one SQLite file.

    file      sqlite_file    one locked connection, its durability, the incarnation
    thread    sqlite_worker  group commit, failures
    calls     sqlite_calls   what the thread has to do, and who waits there for what
    book      sqlite_book    tables and memory, judged by `rules`, held by `roster`
    here                     the contract's methods

Invariant: nothing is answered, and nobody is woken, before the transaction
that it rests on is durable.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from runtime.clock import Clock
from runtime.errors import StoreError, StoreUnavailableError
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
from runtime.store.parking import Alarm
from runtime.store.rules import (
    check_call,
    check_limit,
    check_many,
    check_purge,
    check_room,
    page_limit,
)
from runtime.store.sqlite_book import Book
from runtime.store.sqlite_calls import Call
from runtime.store.sqlite_copy import Copy
from runtime.store.sqlite_file import Durability, StoreFile, machine_boot_id, open_file
from runtime.store.sqlite_worker import Worker

COPY_LOOK_S: Final = 0.02
"""How often a call that waits for a copy looks whether it has ended."""
EXIT_FATAL: Final = 70
"""Exit code of a process whose store failed: EX_SOFTWARE."""


def _end_process() -> None:
    os._exit(EXIT_FATAL)


class SqliteStore:
    """Open it with `SqliteStore.open`."""

    def __init__(self, worker: Worker, clock: Clock) -> None:
        self._worker = worker
        self._alarm = Alarm(clock, self._go_off)
        self._waking: asyncio.Task[None] | None = None
        self._closed = False
        self._clock = clock
        self._next_due_ms: int | None = None
        self._next_event_ms: int | None = None
        """What the alarm was last set for."""
        self._accepted = 0
        self._refused: Counter[str] = Counter()
        self._copy: Copy | None = None
        """The latest copy that was asked for."""

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
        """Open the store at `path`, creating it if need be.

        Args:
            durability: what is never lost; `process kill` saves the fsync of each commit.
            boot_id: names the machine's present boot; the machine's own by default.
            restored: the file is a backup: fence everybody, void all cursors.
            on_fatal: called from the store's thread after an I/O error; must not return.

        Raises:
            StoreLockedError: another process has it open.
            StoreError: it can't be opened, or not as durably as was asked.
        """
        boot = machine_boot_id() if boot_id is None else boot_id

        def open_here() -> StoreFile:
            return open_file(path, durability, boot, restored, random_bytes)

        worker = Worker(open_here, clock, on_fatal)
        store = cls(worker, clock)
        await worker.start(store._deliver)
        store._next_due_ms = worker.book.agents.next_due_ms
        return store

    def _deliver(
        self, calls: list[Call], next_due_ms: int | None, next_event_ms: int | None
    ) -> None:
        """After a transaction or reads: count, set the alarm."""
        self._next_due_ms = next_due_ms
        for call in calls:
            for answer in call.result if call.commits and call.error is None else ():
                if isinstance(answer, Refused):
                    self._refused[answer.reason] += 1
                else:
                    self._accepted += 1
        if next_event_ms != self._next_event_ms and not self._closed:
            self._next_event_ms = next_event_ms
            self._alarm.set(next_event_ms)

    def _go_off(self) -> None:
        """Something may have changed by itself: whoever waits for it looks again."""
        if self._next_event_ms is not None and self._clock.now_ms() < self._next_event_ms:
            self._alarm.set(self._next_event_ms)
        else:
            self._waking = asyncio.create_task(self._wake())

    async def _wake(self) -> None:
        with suppress(StoreError):  # the log says so, and the next poll tries it again
            await self._write(Book.wake)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("closed")

    async def _write(self, run: Callable[[Book], Any]) -> Any:
        self._check_open()
        return await self._worker.call(run)

    async def _read(self, run: Callable[[Book], Any]) -> Any:
        self._check_open()
        return await self._worker.call(run, reads=True)

    async def _watch(
        self, keys: tuple[Hashable, ...], look: Callable[[Book], tuple[Any, bool]], wait_s: float
    ) -> Any:
        self._check_open()
        return await self._worker.watch(keys, look, wait_s)

    # writing

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        self._check_open()
        check_call(commits)
        check_room(commits, self._worker.book.roster.pending)
        return await self._worker.commit(commits)

    async def register(self, owner: str, name: str, lease_s: float) -> str:
        found: str = await self._write(lambda book: book.register(owner, name, lease_s))
        return found

    async def renew(self, owner: str, lease_s: float) -> bool:
        known: bool = await self._write(lambda book: book.renew(owner, lease_s))
        return known

    async def claim(
        self, owner: str, limit: int, agents: Sequence[str] | None = None
    ) -> list[Activation]:
        found: list[Activation] = await self._write(lambda book: book.claim(owner, limit, agents))
        return found

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        await self._write(lambda book: book.release(owner, agents))

    # waiting

    async def poll(self, owner: str, after: int, limit: int, wait_s: float) -> Poll:
        limit = page_limit(limit)
        if self._next_due_ms is not None and self._next_due_ms <= self._clock.now_ms():
            await self._write(Book.fire_due)
        keys = ("poll", ("poll", owner))
        found: Poll = await self._watch(keys, lambda book: book.look(owner, after, limit), wait_s)
        return found

    async def outcome(self, agent: str, message_id: str, wait_s: float) -> StoredMessage | None:
        def look(book: Book) -> tuple[StoredMessage | None, bool]:
            known = book.known(agent)
            message = book.inbox.one(known.row, message_id) if known else None
            return message, message is None or message.status != "pending"

        keys = (("outcome", agent, message_id),)
        found: StoredMessage | None = await self._watch(keys, look, wait_s)
        return found

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
                start = book.feed.start(after, incarnation, self._worker.file.incarnation)
            first, reset = start
            feed = book.feed.look(first, limit, organization, reset)
            return feed, bool(feed.entries) or reset

        found: Feed = await self._watch(("feed",), look, wait_s)
        return found

    # reading

    async def inbox(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        found: list[StoredMessage] = await self._read(
            lambda book: book.waiting(agent, after, page_limit(limit))
        )
        return found

    async def history(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        def read(book: Book) -> list[StoredMessage]:
            known = book.known(agent)
            return book.inbox.history(known.row, after, page_limit(limit)) if known else []

        found: list[StoredMessage] = await self._read(read)
        return found

    async def journal(self, agent: str, after: int, limit: int) -> list[JournalEvent]:
        def read(book: Book) -> list[JournalEvent]:
            known = book.known(agent)
            return book.journals.page(known.row, after, page_limit(limit)) if known else []

        found: list[JournalEvent] = await self._read(read)
        return found

    async def steps(self, job: str) -> list[Step]:
        found: list[Step] = await self._read(lambda book: book.steps.of_job(job))
        return found

    async def get(self, collection: str, key: str) -> Document | None:
        found: Document | None = await self._read(lambda book: book.documents.get(collection, key))
        return found

    async def get_many(self, collection: str, keys: Sequence[str]) -> list[Document]:
        check_many(keys)
        found: list[Document] = await self._read(
            lambda book: book.documents.get_many(collection, keys)
        )
        return found

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
        found: list[Document] = await self._read(
            lambda book: book.documents.page(
                collection, organization, terms, after, limit, descending
            )
        )
        return found

    async def count(
        self, collection: str, organization: str | None = None, terms: Sequence[str] = ()
    ) -> int:
        found: int = await self._read(
            lambda book: book.documents.count(collection, organization, terms)
        )
        return found

    # upkeep

    async def prune(self, before_ms: int, limit: int, ended: Sequence[str] = ()) -> Swept:
        check_limit(limit, ended)
        found: Swept = await self._write(lambda book: book.prune(before_ms, limit, ended))
        return found

    async def purge(self, organization: str, limit: int) -> Swept:
        check_purge(organization, limit)
        found: Swept = await self._write(lambda book: book.purge(organization, limit))
        return found

    async def backup(self, token: str, path: str, wait_s: float) -> Copied:
        """See `backup.Copies`."""
        self._check_open()
        copy = self._copy
        if copy is None or copy.token != token:
            if copy is not None and not copy.ended:
                raise StoreError(f"a copy to {copy.path} is under way")
            copy = self._copy = Copy(token, Path(path))
            await self._read(lambda _: self._worker.copy(copy))
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + wait_s
        while not copy.ended and clock() < deadline_s:
            self._check_open()
            await asyncio.sleep(COPY_LOOK_S)
        return copy.asked()

    async def health(self) -> Health:
        file = self._worker.file
        details, owners = await self._read(
            lambda book: (file.details() | book.details(), book.alive())
        )
        return Health(
            "sqlite",
            file.durability,
            file.incarnation,
            self._accepted,
            dict(self._refused),
            details,
            owners,
        )

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._alarm.cancel()
        await self._worker.close()
        if self._waking is not None:
            await self._waking
