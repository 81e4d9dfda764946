"""The planner: fires schedules at their due times and accounts for every one of them.

A plain object beside the queue, in the scheduler's process and under its fence.
It sleeps until the next due time or news, never longer than LOOK_S, because
somebody may set the clock.  A due time that meets nothing is decided EARLY_MS
before it comes: its job is durable by then, waits for its time, and a thousand
that are due together begin with the second.  Whatever has to be looked at is
decided when it is due.  What is decided together is written in a few group
commits, the first of them small, so that the store has work while the rest is
decided; what was missed is settled by policy at once and caught up slowly, so
an outage is never followed by a storm.

What a due time's fate is, is `schedule.policy`'s; what messages ask for,
`plans.desk`'s; what is known and written, `plans.book`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from runtime.clock import Clock, iso
from runtime.errors import InvalidScheduleError
from runtime.ids import SCHEDULER, SCHEDULER_AGENT
from runtime.job import AgentJob, JobStatus
from runtime.message import Message
from runtime.plans.book import CHUNK, PlanBook, Queue
from runtime.plans.clock import ClockWatch
from runtime.plans.ends import after
from runtime.plans.pace import Pace
from runtime.plans.table import Entry
from runtime.plans.writer import Change, Facts, Ready, fired, meaningless, prepared, settled
from runtime.schedule.policy import GRACE_MS, SLICE, Moment, drain, settle
from runtime.schedule.spec import is_over_budget
from runtime.store.contract import BATCH_MAX, Send, Store

LOOK_S: Final = 1.0
"""Longest sleep: after it the clock is compared with what it should show."""
AHEAD_S: Final = 2.0
"""What is due within so long is prepared."""
EARLY_MS: Final = 500
"""A due time that will start whatever happens is decided, and written, so long before."""
PREPARED_MAX: Final = 4_096
"""Schedules prepared between two rounds."""
FIRST: Final = 16
"""Schedules in the first commit of what is due together: the store is not to wait for more."""
TURNS: Final = 3
"""Turns of the event loop from a write to its bytes on the socket: task, group, call."""
NOTHING: Final = object()
"""Instead of something prepared: there is nothing to prepare."""


class Planner:
    """Create, then `load()`, then `await run()`; it returns only when cancelled or fenced."""

    def __init__(self, store: Store, clock: Clock, queue: Queue, look_s: float = LOOK_S) -> None:
        self.clock = clock
        self.book = PlanBook(store, clock, queue)
        self.load = self.book.load
        """Read every schedule; before `run`."""
        self.lock = asyncio.Lock()
        """Held while anything is decided and written."""
        self._queue = queue
        self._look_s = look_s
        self._pace = Pace()
        self._watch = ClockWatch(2 * look_s)

    # Life

    async def run(self) -> None:
        """Fire and settle until cancelled."""
        while True:
            self.book.news.clear()
            await self._round()
            await self._prepare()
            wait_s = self._wait_s()
            try:
                async with asyncio.timeout(wait_s):
                    await self.book.news.wait()
            except TimeoutError:
                pass

    def about_job(self, job_id: str | None) -> None:
        """A message about a job, or about the queue as a whole, was handled."""
        if job_id is None:
            self.book.news.set()
        elif self.book.table.of_job(job_id) is not None:
            self.book.ended[job_id] = None
            self.book.news.set()

    async def believe(self) -> None:
        """Wait while the clock is in doubt: what is settled, is so for good."""
        while not self._watch.look(self.clock.now_ms(), self._now_s()):  # noqa: ASYNC110 - a clock
            await asyncio.sleep(self._look_s)

    def wake(self) -> None:
        """Look again: what is allowed may have changed."""
        self.book.news.set()

    async def _round(self) -> None:
        """Do what is to be done now."""
        if not self._watch.look(self.clock.now_ms(), self._now_s()):
            return
        async with self.lock:
            await self._settle_ended()
            now_ms, table = self.clock.now_ms(), self.book.table
            due = table.take_due(now_ms)
            due += (one for one in table.prepared(now_ms + EARLY_MS) if one.ready is not NOTHING)
            if due:
                await self.settle_due(due)
            await self._catch_up()

    def _wait_s(self) -> float:
        """How long to sleep; who has news wakes it."""
        if not self._watch.believed(self._now_s()):
            return self._look_s
        if self.book.ended:
            return 0.0
        waits = [self._look_s]
        now_ms = self.clock.now_ms()
        look_ms = self.book.table.next_look_ms(now_ms + EARLY_MS, EARLY_MS)
        if look_ms is not None:
            waits.append((look_ms - now_ms) / 1000)
        organizations = self.book.table.late_organizations()
        if organizations and not self._queue.paused():
            waits.append(self._pace.wait_s(organizations, self._now_s()))
        return max(0.0, min(waits))

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    # Due times

    async def settle_due(self, due: Sequence[Entry]) -> None:
        """Settle every due time that has come, or is prepared and near; in slices if it is long."""
        while due:
            writes = []
            rest: list[Entry] = []
            for chunk in self.book.chunks(due, FIRST):
                changes = []
                for entry in chunk:
                    change, more = self._settle(entry)
                    if change is not None:
                        changes.append(change)
                    if more:
                        rest.append(entry)
                if changes:
                    writes.append(asyncio.create_task(self.book.write(changes)))
                for _ in range(TURNS):  # they leave before the next are decided
                    await asyncio.sleep(0)
            await asyncio.gather(*writes)
            due = [entry for entry in rest if self.book.table.get(entry.key) is entry]

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
        unchanged = False
        if spec.only_if_changed:
            head = self.book.head(entry)
            unchanged = head is not None and head == record.seen_head
        busy = len(record.active) if busy is None else busy
        return Moment(now_ms, busy, hold, unchanged, is_over_budget(spec, record, now_ms))

    def facts(self, entry: Entry) -> Facts:
        """What is written down with an outcome that nobody asked for."""
        return Facts(self.clock.now_ms(), head=self.book.head(entry))

    def _settle(self, entry: Entry) -> tuple[Change | None, bool]:
        """One slice of a schedule's due times, and whether there are more."""
        ready = entry.ready
        if isinstance(ready, Ready) and self._holds(entry, ready):
            return fired(entry, ready, self.clock.now_ms()), False
        try:
            dues, next_ms = self._dues(entry)
        except InvalidScheduleError as error:
            return meaningless(entry, error, self.clock.now_ms()), False
        if not dues:  # it is not time: the clock has gone back, or what was prepared is not so
            self.book.table.put(entry)
            return None, False
        self.book.look_for(entry)  # not each end of a job comes of a message
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
            change.sends += cancels(entry, entry.record.active, moment.now_ms)
        return change.finish(), more

    def _holds(self, entry: Entry, ready: Ready) -> bool:
        """Whether what was prepared is what is to happen: it is near, and all is as it was."""
        next_ms, now_ms = ready.record.next_ms, self.clock.now_ms()
        return (
            ready.of is entry.record
            and -EARLY_MS <= now_ms - ready.run.occurrence.at_ms <= GRACE_MS
            and (next_ms is None or next_ms > now_ms)
            and ready.head == self.book.head(entry)
            and not self._queue.paused()
        )

    async def _prepare(self) -> None:
        """Make beforehand what is due within the next sleep, as long as there is time."""
        until_ms = self.clock.now_ms() + round(AHEAD_S * 1000)
        soon = self.book.table.soon(until_ms, PREPARED_MAX)
        for at in range(0, len(soon), CHUNK):
            wake_ms = self.book.table.next_wake_ms()
            if self.book.news.is_set() or wake_ms is None or wake_ms <= self.clock.now_ms():
                return
            for entry in soon[at : at + CHUNK]:
                try:
                    entry.ready = prepared(entry, self.book.head(entry)) or NOTHING
                except InvalidScheduleError:  # it is told of when it is due
                    entry.ready = NOTHING
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

    # Runs that ended

    async def _settle_ended(self) -> None:
        """Look at the jobs that may have ended, or that the queue does not know of yet.

        What waited for those that have ended may start.
        """
        jobs = list(self.book.ended)[:BATCH_MAX]
        if not jobs:
            return
        for job in jobs:
            del self.book.ended[job]
        known = {job for job in jobs if self._queue.is_open(job)}
        found = await self.book.jobs(jobs)
        pending = (job for job in found.values() if job.status is JobStatus.PENDING)
        if unknown := [job for job in pending if job.id not in known]:
            self._queue.admit(unknown)  # written, but the answer was lost
        ended: dict[str, dict[str, AgentJob | None]] = {}
        for job in jobs:
            record = found.get(job)
            entry = self.book.table.of_job(job)
            if entry is not None and (record is None or record.status.final):
                ended.setdefault(entry.key, {})[job] = record
        entries = [entry for key in ended if (entry := self.book.table.get(key)) is not None]
        for chunk in self.book.chunks(entries):
            changes = []
            for entry in chunk:
                over_jobs = ended[entry.key]
                busy = sum(job not in over_jobs for job in entry.record.active)
                moment = self.moment(entry, busy)
                changes.append(after(entry, over_jobs, moment, self.facts(entry)))
            await self.book.write(changes)
        for key, over in ended.items():
            now = self.book.table.get(key)
            self.book.table.forget_jobs(set(over) - set(now.record.active if now else ()))

    # Catching up

    async def _catch_up(self) -> None:
        """Start what waits for its turn, at the pace that was set."""
        if self._queue.paused():
            return
        taken: list[Entry] = []
        turns = self.book.table.late_organizations()
        while turns:
            turns = [one for one in turns if self._pace.take(one, self._now_s())]
            taken += [one for name in turns if (one := self.book.table.take_late(name)) is not None]
            turns = [name for name in turns if name in self.book.table.late_organizations()]
        for chunk in self.book.chunks(taken):
            changes = []
            for entry in chunk:
                fates = drain(entry.spec, entry.record.waiting, self.moment(entry), paced=True)
                if fates.fires or fates.runs:
                    changes.append(settled(entry, entry.record, fates, self.facts(entry)).finish())
            if changes:
                await self.book.write(changes)


def cancels(entry: Entry, jobs: Iterable[str], now_ms: int) -> list[Send]:
    """Have the queue cancel jobs of a schedule."""
    sends = []
    for job in jobs:
        message = Message(
            message_id=f"cancel:{job}:{entry.doc_revision}",
            sender=SCHEDULER_AGENT,
            recipient=SCHEDULER_AGENT,
            message_type="job.cancel",
            content={"jobId": job, "by": f"schedule {entry.record.name}"},
            timestamp=iso(now_ms),
        )
        sends.append(Send(message.message_id, SCHEDULER, SCHEDULER, message.to_json()))
    return sends
