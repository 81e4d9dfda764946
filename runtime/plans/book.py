"""The book of schedules: what their documents say, in memory, and how both change.

Invariant: memory says what the documents say.  A change is applied after it is
written; when one is refused (it had landed already, or somebody removed the
document) the schedule is read again.  One that can't be written stands still,
alone, until somebody sets it anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from runtime.clock import Clock
from runtime.errors import InvalidScheduleError, StoreError
from runtime.job import AgentJob
from runtime.jobs.decisions import Decision
from runtime.jobs.records import Record, record_of
from runtime.patience import patiently
from runtime.plans.logged import decided
from runtime.plans.table import Entry, PlanTable
from runtime.plans.writer import Change, Facts, meaningless, retimed
from runtime.repository import repository_name
from runtime.schedule.record import (
    REVISIONS,
    SCHEDULES,
    Revision,
    Schedule,
    decode_revision,
    decode_schedule,
    revision_key,
)
from runtime.schedule.zones import TZDATA_VERSION
from runtime.store.contract import ABSENT, BATCH_MAX, MANY_MAX, Ack, Document, Put, Store

logger = logging.getLogger(__name__)

CHUNK: Final = 64
"""Schedules in one commit; several are written in one group."""
AHEAD_MS: Final = 3_600_000
"""A watermark so far in the future is somebody's mistake with the clock."""
HEADS: Final = "repository_head"
"""Collection: what commit a repository is at, as events told; key organization/repository."""

WriteDecision = Callable[[Decision, tuple[Ack, ...]], Awaitable[str | None]]
"""Commits under the scheduler's fence; the reason if it was refused."""


@dataclass(frozen=True)
class Queue:
    """What schedules need of the queue beside them."""

    commit: WriteDecision
    admit: Callable[[Sequence[AgentJob]], None]
    """Queue jobs whose records were just written."""
    is_open: Callable[[str], bool]
    """Whether a job is somewhere in the queue: it has not ended."""
    paused: Callable[[], bool]
    """Whether the scheduler as a whole is paused."""
    fired: Callable[[int], None] = lambda late_ms: None
    """A due time was fired, and is durable, so many milliseconds after it; not of early ones."""


class PlanBook:
    def __init__(self, store: Store, clock: Clock, queue: Queue) -> None:
        self.table = PlanTable()
        self.heads: dict[tuple[str, str], str] = {}
        """(organization, `repository_name`) -> its commit."""
        self.news = asyncio.Event()
        """Something is to be looked at."""
        self.ended: dict[str, None] = {}
        """Jobs of schedules that may have ended."""
        self._store = store
        self._clock = clock
        self._queue = queue
        self._refused: set[str] = set()
        """Schedules whose last write was refused."""

    # Reading

    async def load(self) -> None:
        """Read every schedule; they are the only truth."""
        async for page in self._pages(HEADS):
            for document in page:
                organization, _, location = document.key.partition("/")
                repository = repository_name(location)
                if repository == location or (organization, repository) not in self.heads:
                    self.heads[organization, repository] = document.body.decode()
        async for page in self._pages(SCHEDULES):
            for document in page:
                if (entry := self._adopt(document)) is not None:
                    self.look_for(entry)
        await self._retime()
        now_ms = self._clock.now_ms()
        ahead = [e.key for e in self.table if e.record.accounted_ms > now_ms + AHEAD_MS]
        if ahead:
            logger.critical(
                "%d schedules have run into the future, %s first: is the clock right?",
                len(ahead),
                ahead[0],
                extra={"action": "schedule.ahead", "schedules": len(ahead)},
            )
        logger.info(
            "%d schedules are planned",
            len(self.table),
            extra={"action": "schedule.loaded", "schedules": len(self.table)},
        )

    async def _retime(self) -> None:
        """Bring schedules under the present rules of their zones; usually they are."""
        stale = [
            entry
            for entry in self.table
            if entry.record.tzdata != TZDATA_VERSION and entry.spec.kind != "event"
        ]
        for chunk in self.chunks(stale):
            changes = []
            for entry in chunk:
                now_ms = self._clock.now_ms()
                try:
                    changes.append(retimed(entry, Facts(now_ms)))
                except InvalidScheduleError as error:
                    changes.append(meaningless(entry, error, now_ms))
            await self.write(changes)
        if stale:
            logger.info(
                "%d schedules follow the time zones of %s from now on",
                len(stale),
                TZDATA_VERSION,
                extra={"action": "schedule.retimed", "schedules": len(stale)},
            )

    async def _pages(self, collection: str) -> AsyncIterator[list[Document]]:
        """All documents; the next page is on its way while one is worked on."""
        coming = asyncio.create_task(self._page(collection, None))
        try:
            while page := await coming:
                coming = asyncio.create_task(self._page(collection, page[-1].key))
                await asyncio.sleep(0)  # it is asked for before this one is worked on
                yield page
        finally:
            coming.cancel()

    async def _page(self, collection: str, after_key: str | None) -> list[Document]:
        return await patiently(
            self._store.list_documents, collection, None, (), after_key, BATCH_MAX, False
        )

    def _adopt(self, document: Document) -> Entry | None:
        """Know a schedule; None: it can't be read, which stops nobody else's."""
        try:
            record = decode_schedule(document.body)
        except ValueError as error:
            logger.critical(
                "the schedule %s is passed over, it can't be read: %s",
                document.key,
                error,
                extra={"action": "schedule.unreadable", "schedule": document.key},
            )
            return None
        entry = Entry(document.key, document.revision, record)
        self.table.put(entry)
        return entry

    def look_for(self, entry: Entry) -> None:
        """Look at those of its jobs that the queue does not know: have they ended?"""
        self._look_at(job for job in entry.record.active if not self._queue.is_open(job))

    def _look_at(self, jobs: Iterable[str]) -> None:
        for job in jobs:
            self.ended[job] = None

    def head(self, entry: Entry) -> str | None:
        """The commit of a schedule's repository, if an event has told."""
        location, organization = entry.spec.repository, entry.record.organization_id
        return self.heads.get((organization, repository_name(location))) if location else None

    async def revision(self, record: Schedule) -> Revision | None:
        """The document of a schedule's present revision."""
        key = revision_key(record.id, record.revision)
        document = await patiently(self._store.get, REVISIONS, key)
        return decode_revision(document.body) if document is not None else None

    async def jobs(self, jobs: Sequence[str]) -> dict[str, AgentJob]:
        """Jobs as they are now; one that was removed is absent."""
        return {one.job.id: one.job for one in await self.records(jobs)}

    async def records(self, jobs: Sequence[str]) -> list[Record]:
        """The same with their revisions."""
        found: list[Record] = []
        for at in range(0, len(jobs), MANY_MAX):
            keys = jobs[at : at + MANY_MAX]
            for document in await patiently(self._store.get_many, "job", keys):
                if (record := record_of(document)) is not None:
                    found.append(record)
        return found

    # Writing

    def chunks(self, entries: Sequence[Entry], first: int = CHUNK) -> list[list[Entry]]:
        """In one commit each; those that were refused are written alone.

        Args:
            first: how many at most are in the first, 1..CHUNK.
        """
        together = [entry for entry in entries if entry.key not in self._refused]
        chunks = [together[:first]] if together else []
        chunks += [together[at : at + CHUNK] for at in range(first, len(together), CHUNK)]
        return chunks + [[entry] for entry in entries if entry.key in self._refused]

    async def write(
        self,
        changes: Sequence[Change],
        acks: tuple[Ack, ...] = (),
        puts: Sequence[Put] = (),
    ) -> str | None:
        """Write changes of different schedules in one commit, and go by them once it is there.

        Returns:
            Why it was refused; then nothing of it is there, or it was already, and
            the schedules were read again.
        """
        decision = Decision(puts=list(puts))
        for change in changes:
            decision.puts += change.puts
            decision.sends += change.sends
            decision.feed += change.feed
        try:
            refused = await self._queue.commit(decision, acks)
        except (StoreError, ValueError) as error:
            if acks:  # who asks is to be told
                raise
            self._unwritable([change.entry for change in changes], error)
            return "unwritable"
        if refused is not None:
            await asyncio.gather(
                *(self._read_again(one.entry, asked=bool(acks)) for one in changes)
            )
            return refused
        for change in changes:
            await self._apply(change)
        now_ms = self._clock.now_ms()
        for start_ms in (start_ms for change in changes for start_ms in change.fired_ms):
            if start_ms <= now_ms:  # else its job is not in the queue before
                self._queue.fired(now_ms - start_ms)
        if jobs := [job for change in changes for job in change.jobs]:
            self._queue.admit(jobs)
        decided(changes)
        return None

    def _unwritable(self, entries: Sequence[Entry], error: Exception) -> None:
        """One of these can't be written: which? Then it stands still, alone."""
        for entry in entries:
            if len(entries) == 1:
                self._stop(entry, error)
            else:
                self._refused.add(entry.key)
                self.table.put(entry)
        self.news.set()

    def _stop(self, entry: Entry, why: object) -> None:
        """It is left alone until somebody sets it anew, or the scheduler is started again."""
        logger.critical(
            "%s stands still until it is set anew: %s",
            entry.key,
            why,
            extra={"action": "schedule.refused", "schedule": entry.key},
        )
        entry.record = msgspec.structs.replace(entry.record, wake_ms=None, waiting=())
        self.table.put(entry)

    async def _apply(self, change: Change) -> None:
        entry, record = change.entry, change.record
        self._refused.discard(entry.key)
        if record is None:
            self.table.remove(entry.key)
            return
        if entry.doc_revision == ABSENT:  # made again, its document goes on from its last revision
            document = await patiently(self._store.get, SCHEDULES, entry.key)
            if document is not None:
                self._adopt(document)
            return
        if change.new_spec:
            self.table.remove(entry.key)
            entry.set(record, entry.doc_revision + 1)
        else:
            entry.moved(record)
        self.table.put(entry)

    async def _read_again(self, entry: Entry, *, asked: bool) -> None:
        """Go by the document; one that is refused though nobody has changed it is left alone.

        Args:
            asked: by a message, which may have had its answer: that says nothing of the schedule.
        """
        document = await patiently(self._store.get, SCHEDULES, entry.key)
        self.table.remove(entry.key)
        if document is None:
            return
        if not asked:
            if document.revision == entry.doc_revision and entry.key in self._refused:
                self._stop(entry, "the ledger has what it is to have next")
                return
            self._refused.add(entry.key)
        if (found := self._adopt(document)) is not None:
            self._look_at(found.record.active)
        self.news.set()
