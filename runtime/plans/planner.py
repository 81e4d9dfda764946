"""The planner: fires schedules at their due times and accounts for every one of them.

A plain object beside the queue, in the scheduler's process and under its fence.
It sleeps until the next due time or news, never longer than LOOK_S, because
somebody may set the clock.  What is due together is written in a few group
commits; what was missed is settled by policy at once and caught up slowly, so
an outage is never followed by a storm.

Invariant: memory says what the documents say.  A change is applied after it is
written; when one is refused (it had landed already, or somebody removed the
document) the schedule is read again.

What a due time's fate is, is `schedule.policy`'s; what messages ask for,
`plans.desk`'s; what is written, `plans.writer`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from runtime.clock import Clock, iso
from runtime.errors import InvalidScheduleError, StoreError
from runtime.ids import SCHEDULER
from runtime.job import AgentJob
from runtime.jobs.decisions import SENDER, Decision
from runtime.message import Message
from runtime.patience import patiently
from runtime.plans.clock import ClockWatch
from runtime.plans.ends import after
from runtime.plans.pace import Pace
from runtime.plans.table import Entry, PlanTable
from runtime.plans.writer import Change, Facts, Ready, fired, prepared, retimed, settled
from runtime.schedule.policy import GRACE_MS, SLICE, Moment, drain, settle
from runtime.schedule.record import (
    REVISIONS,
    SCHEDULES,
    Cause,
    Revision,
    Schedule,
    decode_revision,
    decode_schedule,
    revision_key,
)
from runtime.schedule.spec import local_day
from runtime.schedule.zones import TZDATA_VERSION
from runtime.store.contract import BATCH_MAX, MANY_MAX, Ack, Document, Put, Send, Store

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Longest sleep: after it the clock is compared with what it should show."""
CHUNK: Final = 64
"""Schedules in one commit; several are written in one group."""
AHEAD_S: Final = 2.0
"""What is due within so long is prepared."""
PREPARED_MAX: Final = 4_096
"""Schedules prepared between two rounds."""
NOTHING: Final = object()
"""Instead of something prepared: there is nothing to prepare."""
AHEAD_MS: Final = 3_600_000
"""A watermark so far in the future is somebody's mistake with the clock."""
HEADS: Final = "repository_head"
"""Collection: what commit a repository is at, as events told; key organization/repository."""

WriteDecision = Callable[[Decision, tuple[Ack, ...]], Awaitable[str | None]]
"""Commits under the scheduler's fence; the reason if it was refused."""


@dataclass(frozen=True)
class Queue:
    """What the planner needs of the queue beside it."""

    commit: WriteDecision
    admit: Callable[[Sequence[AgentJob]], None]
    """Queue jobs whose records were just written."""
    is_open: Callable[[str], bool]
    """Whether a job is somewhere in the queue: it has not ended."""
    paused: Callable[[], bool]
    """Whether the scheduler as a whole is paused."""
    fired: Callable[[int], None] = lambda late_ms: None
    """A due time was fired, and is durable, so many milliseconds after it."""


class Planner:
    """Create, then `load()`, then `await run()`; it returns only when cancelled or fenced."""

    def __init__(self, store: Store, clock: Clock, queue: Queue, look_s: float = LOOK_S) -> None:
        self.store = store
        self.clock = clock
        self.table = PlanTable()
        self.heads: dict[tuple[str, str], str] = {}
        """(organization, repository) -> its commit."""
        self.lock = asyncio.Lock()
        """Held while anything is decided and written."""
        self.rounds = 0
        self._queue = queue
        self._look_s = look_s
        self._news = asyncio.Event()
        self._ended: dict[str, None] = {}
        """Jobs of schedules that may have ended."""
        self._refused: set[str] = set()
        """Schedules whose last write was refused."""
        self._pace = Pace()
        self._watch = ClockWatch(2 * look_s)

    # Life

    async def load(self) -> None:
        """Read every schedule; they are the only truth."""
        async for page in self._pages(HEADS):
            for document in page:
                organization, _, repository = document.key.partition("/")
                self.heads[organization, repository] = document.body.decode()
        async for page in self._pages(SCHEDULES):
            for document in page:
                entry = self._adopt(document)
                for job in entry.record.active:
                    if not self._queue.is_open(job):
                        self._ended[job] = None
        await self._retime()
        now_ms = self.clock.now_ms()
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
        for chunk in self._chunks(stale):
            changes = []
            for entry in chunk:
                try:
                    changes.append(retimed(entry, Facts(self.clock.now_ms())))
                except InvalidScheduleError as error:
                    changes.append(self._meaningless(entry, error))
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
            while len(page := await coming) == BATCH_MAX:
                coming = asyncio.create_task(self._page(collection, page[-1].key))
                await asyncio.sleep(0)  # it is asked for before this one is worked on
                yield page
            yield page
        finally:
            coming.cancel()

    async def _page(self, collection: str, after_key: str | None) -> list[Document]:
        return await patiently(
            lambda: self.store.list_documents(
                collection, None, (), after_key, BATCH_MAX, descending=False
            )
        )

    def _adopt(self, document: Document) -> Entry:
        entry = Entry(document.key, document.revision, decode_schedule(document.body))
        self.table.put(entry)
        return entry

    async def run(self) -> None:
        """Fire and settle until cancelled."""
        while True:
            self._news.clear()
            await self._round()
            await self._prepare()
            wait_s = self._wait_s()
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                pass

    def about_job(self, job_id: str | None) -> None:
        """A message about a job, or about the queue as a whole, was handled."""
        if job_id is None:
            self._news.set()
        elif self.table.of_job(job_id) is not None:
            self._ended[job_id] = None
            self._news.set()

    def wake(self) -> None:
        """Look again: what is allowed may have changed."""
        self._news.set()

    async def _round(self) -> None:
        """Do what is to be done now."""
        self.rounds += 1
        if not self._watch.look(self.clock.now_ms(), self._now_s()):
            return
        async with self.lock:
            await self._settle_ended()
            due = self.table.take_due(self.clock.now_ms())
            if due:
                await self.settle_due(due)
            await self._catch_up()

    def _wait_s(self) -> float:
        """How long to sleep; who has news wakes it."""
        if not self._watch.believed(self._now_s()):
            return self._look_s
        if self._ended:
            return 0.0
        waits = [self._look_s]
        wake_ms = self.table.next_wake_ms()
        if wake_ms is not None:
            waits.append((wake_ms - self.clock.now_ms()) / 1000)
        organizations = self.table.late_organizations()
        if organizations and not self._queue.paused():
            waits.append(self._pace.wait_s(organizations, self._now_s()))
        return max(0.0, min(waits))

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    # Due times

    async def settle_due(self, due: Sequence[Entry]) -> None:
        """Settle every due time that has come; what takes long is done in slices."""
        while due:
            writes = []
            rest: list[Entry] = []
            for chunk in self._chunks(due):
                changes = []
                for entry in chunk:
                    change, more = self._settle(entry)
                    if change is not None:
                        changes.append(change)
                    if more:
                        rest.append(entry)
                if changes:
                    writes.append(asyncio.create_task(self.write(changes)))
                await asyncio.sleep(0)  # the first are on their way while the next are made
            await asyncio.gather(*writes)
            due = [entry for entry in rest if self.table.get(entry.key) is entry]

    def _chunks(self, entries: Sequence[Entry]) -> list[list[Entry]]:
        """In one commit each; those that were refused are written alone."""
        together = [entry for entry in entries if entry.key not in self._refused]
        chunks = [together[at : at + CHUNK] for at in range(0, len(together), CHUNK)]
        return chunks + [[entry] for entry in entries if entry.key in self._refused]

    def moment(self, entry: Entry, busy: int | None = None) -> Moment:
        """What is true for a schedule now.

        Args:
            busy: its runs that have not ended; default: as its record has them.
        """
        record, spec, now_ms = entry.record, entry.spec, self.clock.now_ms()
        hold: str | None = None
        if record.status != "active":
            hold = record.status
        elif self._queue.paused():
            hold = "scheduler_paused"
        unchanged = over = False
        if spec.only_if_changed:
            head = self.head(entry)
            unchanged = head is not None and head == record.seen_head
        if spec.budget_usd_per_day is not None:
            today = record.spent_day == local_day(spec, now_ms)
            over = today and record.spent_usd >= spec.budget_usd_per_day
        return Moment(now_ms, len(record.active) if busy is None else busy, hold, unchanged, over)

    async def revision(self, record: Schedule) -> Revision | None:
        """The document of a schedule's present revision."""
        key = revision_key(record.id, record.revision)
        document = await patiently(lambda: self.store.get(REVISIONS, key))
        return decode_revision(document.body) if document is not None else None

    def head(self, entry: Entry) -> str | None:
        """The commit of a schedule's repository, if an event has told."""
        repository = entry.spec.repository
        return self.heads.get((entry.record.organization_id, repository)) if repository else None

    def facts(self, entry: Entry) -> Facts:
        """What is written down with an outcome that nobody asked for."""
        cause: Cause = "event" if entry.spec.kind == "event" else "time"
        return Facts(self.clock.now_ms(), cause, head=self.head(entry))

    def _settle(self, entry: Entry) -> tuple[Change | None, bool]:
        """One slice of a schedule's due times, and whether there are more."""
        ready = entry.ready
        if isinstance(ready, Ready) and self._is_plain(entry, ready):
            return fired(entry, ready, self.facts(entry)), False
        try:
            dues, next_ms = self._dues(entry)
        except InvalidScheduleError as error:
            return self._meaningless(entry, error), False
        if not dues:  # the clock has gone back since
            self.table.put(entry)
            return None, False
        moment, more = self.moment(entry), len(dues) > SLICE
        late_ms = moment.now_ms - GRACE_MS
        late = sum(due < late_ms and entry.start_ms(due) < late_ms for due in dues)
        fates = settle(entry.spec, entry.record.waiting, dues, moment, late=late, more=more)
        done_ms = fates.accounted_ms or 0
        if more:
            next_ms = next(due for due in dues if due > done_ms)
        change = settled(
            entry,
            entry.record,
            fates,
            self.facts(entry),
            first_ms=dues[0],
            accounted_ms=done_ms,
            next_ms=next_ms,
        )
        if fates.cancel:
            change.sends += commands("cancel", entry, entry.record.active, moment.now_ms)
        return change.finish(), more

    def _is_plain(self, entry: Entry, ready: Ready) -> bool:
        """Whether what was prepared is what is to happen: it is time, and nothing is in its way."""
        record, spec, now_ms = entry.record, entry.spec, self.clock.now_ms()
        return (
            record.next_ms == ready.run.due_ms
            and 0 <= now_ms - ready.run.occurrence.at_ms <= GRACE_MS
            and (ready.next_ms is None or ready.next_ms > now_ms)
            and (not record.active or spec.overlap == "allow")
            and not record.waiting
            and record.status == "active"
            and not spec.only_if_changed
            and spec.budget_usd_per_day is None
            and not self._queue.paused()
        )

    async def _prepare(self) -> None:
        """Make beforehand what is due within the next sleep, as long as there is time."""
        until_ms = self.clock.now_ms() + round(AHEAD_S * 1000)
        for _ in range(PREPARED_MAX // CHUNK):
            wake_ms = self.table.next_wake_ms()
            if self._news.is_set() or wake_ms is None or wake_ms <= self.clock.now_ms():
                return
            soon = self.table.soon(until_ms, CHUNK)
            for entry in soon:
                try:
                    entry.ready = prepared(entry) or NOTHING
                except InvalidScheduleError:  # it is told of when it is due
                    entry.ready = NOTHING
            if not soon:
                return
            await asyncio.sleep(0)

    def _dues(self, entry: Entry) -> tuple[list[int], int | None]:
        """The due times that are to start by now, at most SLICE + 1, and the next one."""
        now_ms, next_ms = self.clock.now_ms(), entry.record.next_ms
        plan = entry.plan
        dues: list[int] = []
        while plan is not None and next_ms is not None and next_ms <= now_ms:
            if len(dues) > SLICE or entry.start_ms(next_ms) > now_ms:
                break
            dues.append(next_ms)
            next_ms = plan.next_after(next_ms)
        return dues, next_ms

    def _meaningless(self, entry: Entry, error: InvalidScheduleError) -> Change:
        """What was once accepted can't be read any more: off the schedule, for a person to see."""
        record = msgspec.structs.replace(
            entry.record, status="error", error=str(error), next_ms=None, wake_ms=None
        )
        change = Change(entry, record)
        change.publish("schedule:error", {"error": str(error)}, self.clock.now_ms())
        return change.finish()

    # Runs that ended

    async def _settle_ended(self) -> None:
        """Look at the jobs that may have ended; what waited for them may start."""
        jobs = list(self._ended)[:BATCH_MAX]
        if not jobs:
            return
        for job in jobs:
            del self._ended[job]
        found = await self.jobs(jobs)
        ended: dict[str, dict[str, AgentJob | None]] = {}
        for job in jobs:
            record = found.get(job)
            entry = self.table.of_job(job)
            if entry is not None and (record is None or record.status.final):
                ended.setdefault(entry.key, {})[job] = record
        entries = [entry for key in ended if (entry := self.table.get(key)) is not None]
        for chunk in self._chunks(entries):
            changes = []
            for entry in chunk:
                over_jobs = ended[entry.key]
                busy = sum(job not in over_jobs for job in entry.record.active)
                moment = self.moment(entry, busy)
                changes.append(after(entry, over_jobs, moment, self.facts(entry)))
            await self.write(changes)
        for key, over in ended.items():
            now = self.table.get(key)
            self.table.forget_jobs(set(over) - set(now.record.active if now else ()))

    async def jobs(self, jobs: Sequence[str]) -> dict[str, AgentJob]:
        """The records of jobs; one that was removed is absent."""
        found: dict[str, AgentJob] = {}
        for at in range(0, len(jobs), MANY_MAX):
            keys = jobs[at : at + MANY_MAX]
            for document in await patiently(lambda keys=keys: self.store.get_many("job", keys)):  # type: ignore[misc]
                found[document.key] = AgentJob.model_validate_json(document.body)
        return found

    # Catching up

    async def _catch_up(self) -> None:
        """Start what waits for its turn, at the pace that was set."""
        if self._queue.paused():
            return
        taken: list[Entry] = []
        turns = self.table.late_organizations()
        while turns:
            turns = [one for one in turns if self._pace.take(one, self._now_s())]
            taken += [one for name in turns if (one := self.table.take_late(name)) is not None]
            turns = [name for name in turns if name in self.table.late_organizations()]
        for chunk in self._chunks(taken):
            changes = []
            for entry in chunk:
                fates = drain(entry.spec, entry.record.waiting, self.moment(entry), paced=True)
                if fates.fires or fates.runs:
                    changes.append(settled(entry, entry.record, fates, self.facts(entry)).finish())
            if changes:
                await self.write(changes)

    # Writing

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
            await asyncio.gather(*(self._read_again(change.entry) for change in changes))
            return refused
        jobs: list[AgentJob] = []
        now_ms = self.clock.now_ms()
        for change in changes:
            self._apply(change)
            jobs += change.jobs
            for start_ms in change.fired_ms:
                self._queue.fired(max(0, now_ms - start_ms))
        if jobs:
            self._queue.admit(jobs)
        return None

    def _unwritable(self, entries: Sequence[Entry], error: Exception) -> None:
        """One of these can't be written: which? Then it stands still, alone."""
        for entry in entries:
            if len(entries) == 1:
                self._stop(entry, error)
            else:
                self._refused.add(entry.key)
                self.table.put(entry)
        self._news.set()

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

    def _apply(self, change: Change) -> None:
        entry, record = change.entry, change.record
        self._refused.discard(entry.key)
        if record is None:
            self.table.remove(entry.key)
            return
        if change.new_spec:
            self.table.remove(entry.key)
            entry.set(record, entry.doc_revision + 1)
        else:
            entry.moved(record)
        self.table.put(entry)

    async def _read_again(self, entry: Entry) -> None:
        """Go by the document; one that is refused though nobody has changed it is left alone."""
        document = await patiently(lambda: self.store.get(SCHEDULES, entry.key))
        self.table.remove(entry.key)
        if document is None:
            return
        if document.revision == entry.doc_revision and entry.key in self._refused:
            self._stop(entry, "the ledger has what it is to have next")
            return
        self._refused.add(entry.key)
        found = self._adopt(document)
        for job in found.record.active:
            self._ended[job] = None
        self._news.set()


def commands(verb: str, entry: Entry, jobs: Iterable[str], now_ms: int) -> list[Send]:
    """Have the queue cancel, pause or resume jobs of a schedule."""
    sends = []
    for job in jobs:
        message = Message(
            message_id=f"{verb}:{job}:{entry.doc_revision}",
            sender=SENDER,
            recipient=SENDER,
            message_type=f"job.{verb}",
            content={"jobId": job, "by": f"schedule {entry.record.name}"},
            timestamp=iso(now_ms),
        )
        sends.append(Send(message.message_id, SCHEDULER, SCHEDULER, message.to_json()))
    return sends
