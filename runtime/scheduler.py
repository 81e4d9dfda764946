"""The scheduler: one queue of jobs, dispatched by priority under limits.

It is the single writer of a job's record while the job is not running, and it
works like an agent: an inbox, an epoch, and one commit for what each message
led to.  To dispatch is to commit `status=running` together with the message
`job.run` for the job's agent; from there on the host that claims the agent is
the record's writer until `job.ended` comes back.  So nothing is lost between
the two, and a second scheduler can run but not write.

What it holds in memory is rebuilt from the job records at every start.  Where
each job is, is `jobs.table`'s; what each message about one leads to, `jobs.desk`'s.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from runtime.backoff import Backoff
from runtime.clock import Clock, iso
from runtime.errors import InvalidIdError, InvalidMessageError, StoreError, StoreUnavailableError
from runtime.group import GroupCommitter
from runtime.ids import HOME, SCHEDULER, SYSTEM, Ids, address, split
from runtime.job import AgentJob, JobStatus
from runtime.jobs import decisions
from runtime.jobs.decisions import Decision, refuse
from runtime.jobs.desk import ATTEMPTS_MAX, JobDesk
from runtime.jobs.holds import HOLDS
from runtime.jobs.orphans import orphans
from runtime.jobs.records import JobRecords, Record
from runtime.jobs.rounds import DECIDE_MAX, ENDED, RETRY, Heard, Unit, packed
from runtime.jobs.table import JobTable
from runtime.message import Message, WireModel
from runtime.metrics import Meter
from runtime.observed import Observed
from runtime.patience import patiently
from runtime.plans.desk import PlanDesk
from runtime.plans.planner import Planner, Queue
from runtime.schedule.queue import Limits
from runtime.standing import COLLECTION, Control, Present, read, standing
from runtime.store.contract import (
    BATCH_MAX,
    DEAD_LETTERS,
    Ack,
    Activation,
    Document,
    FeedEvent,
    Fence,
    Put,
    Refused,
    Store,
    StoredMessage,
)
from runtime.turn import feed_event

logger = logging.getLogger(__name__)

POLL_WAIT_S = 10.0
RETRY_S = 0.2
LEASE_S = 10.0
TELL_EVERY_S = 5.0
"""Between two events that only say how the queue stands."""

HOLDING = frozenset({"agent.pause", "agent.resume"})
PRIVATE = ("changedBy", "owner", "epoch")
"""What of the status is not everybody's business."""


class FencedError(Exception):
    """Another scheduler has taken over."""


class Scheduler:
    """Create, then `await run()`; it returns only when cancelled or fenced."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        random: Callable[[], float],
        limits: Limits | None = None,
        backoff: Backoff | None = None,
        name: str = "scheduler",
        meter: Meter | None = None,
        attempts_max: int = ATTEMPTS_MAX,
        check_s: float = POLL_WAIT_S,
    ) -> None:
        """
        Args:
            attempts_max: tries of a job that does not say, the first among them.
            check_s: longest sleep; what comes or is due ends it sooner.
            name: a scheduler takes over at once from an older one of its name, and waits
                for the lease of any other.
            meter: whoever gives one also drains it.
        """
        self.name = name
        self.owner = f"{name}/{ids.ulid()}"
        self._store = store
        self._clock = clock
        self._ids = ids
        self._limits = limits or Limits()
        self._jobs = JobTable(self._limits)
        self._check_s = check_s
        self._desk = JobDesk(self._jobs, clock, random, backoff or Backoff(), attempts_max)
        self._control = Control()
        self._fence = Fence("", 0)
        self._group = GroupCommitter(store)
        self._records = JobRecords(store)
        self._look_again = False
        """A job was put back into the queue after the last look at it."""
        self._told = self._jobs.counts()
        self._tell_at_s = 0.0
        self._cursor = 0
        self._deciding = asyncio.Lock()
        """Held while something is decided about jobs and written."""
        self._admitted = asyncio.Event()
        self._meter = meter or Meter()
        self._observed = Observed(self._meter)
        queue = Queue(self._commit, self._admit, self._jobs.is_open, self._is_paused, self._fired)
        self._planner = Planner(store, clock, queue)
        self._plans = PlanDesk(self._planner, ids)

    # Life

    async def run(self) -> None:
        """Take the schedule over, rebuild, and work until cancelled.

        Raises:
            FencedError: another scheduler has the epoch, or the store knows this one
                no more; nothing more was written.
        """
        incarnation = await patiently(lambda: self._store.register(self.owner, self.name, LEASE_S))
        tasks = [
            asyncio.create_task(self._renew(incarnation)),
            asyncio.create_task(self._work(incarnation)),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await self._group.close()

    async def _work(self, incarnation: str) -> None:
        pending = await self._take_over(incarnation)
        await self._rebuild()
        await self._planner.load()
        await self._heard(pending)
        works = (self._planner.run(), self._dispatch_admitted(), self._serve())
        duties = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.gather(*duties)
        finally:
            for duty in duties:
                duty.cancel()

    async def _serve(self) -> None:
        while True:
            wait_s = self._wait_s()
            poll = await patiently(
                lambda wait_s=wait_s: self._store.poll(  # type: ignore[misc]
                    self.owner, self._cursor, BATCH_MAX, wait_s
                )
            )
            self._cursor = poll.cursor
            await self._heard(poll.messages)

    def status(self) -> dict[str, Any]:
        """Counts and state, as `GET /api/scheduler/status` answers them from the store."""
        return standing(self._control, self._present(), self._jobs.counts())

    def measure(self) -> None:
        """Set the gauges of the meter to what is true now."""
        for state, count in self._jobs.counts().items():
            self._meter.set("troupe_jobs", count, state)
        self._meter.set("troupe_scheduler_paused", self._control.paused)
        oldest_ms = self._jobs.oldest_ms()
        waited_ms = self._clock.now_ms() - oldest_ms if oldest_ms is not None else 0
        self._meter.set("troupe_queue_age_seconds", max(0, waited_ms) / 1000)

    def _present(self) -> Present:
        return Present(owner=self.owner, epoch=self._fence.epoch, max_concurrent=self._limits.total)

    async def _take_over(self, incarnation: str) -> tuple[StoredMessage, ...]:
        while True:
            claimed = await self._claim()
            if claimed:
                self._fence = Fence(incarnation, claimed[0].epoch)
                logger.info(
                    "the scheduler is up, epoch %d",
                    claimed[0].epoch,
                    extra={"action": "scheduler.started", "epoch": claimed[0].epoch},
                )
                return claimed[0].inbox
            await asyncio.sleep(RETRY_S)

    async def _claim(self) -> list[Activation]:
        """Claim the scheduler's own inbox; empty while another holds it."""
        try:
            return await self._store.claim(self.owner, 1, [SCHEDULER])
        except StoreUnavailableError:  # it may be held now: let go, so that it can be claimed
            await patiently(lambda: self._store.release(self.owner, [SCHEDULER]))
            return []

    async def _renew(self, incarnation: str) -> None:
        """Keep the lease; who has lost it hears of no message any more, and must say so."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            if not await patiently(lambda: self._store.renew(self.owner, LEASE_S)):
                raise FencedError("its lease is another's")
            if (await patiently(self._store.health)).incarnation != incarnation:
                raise FencedError("the store has another incarnation")

    async def _rebuild(self) -> None:
        """Read what the records say; they are the only truth. First tell whose turn it is."""
        await self._commit(Decision(puts=[_put("present", self._present())]))
        self._control = read(
            await patiently(lambda: self._store.get(COLLECTION, "control")), Control
        )
        service = await patiently(lambda: self._store.get("stats", "service_times"))
        if service is not None:
            self._desk.service = json.loads(service.body)
        self._desk.holds.load(await self._all(HOLDS, []))
        for status in (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.WAITING, JobStatus.PAUSED):
            found = [
                (AgentJob.model_validate_json(document.body), document.revision)
                for document in await self._all("job", [f"status={status.value}"])
            ]
            for job, _ in found:
                self._jobs.admit(job, self._clock.now_ms())
            if status is JobStatus.RUNNING:
                await self._take_in(found)

    async def _take_in(self, running: list[tuple[AgentJob, int]]) -> None:
        """Queue the jobs anew of which nobody has the run."""
        lost = await orphans(self._store, [job for job, _ in running])
        for job, revision in running:
            if job.id in lost:
                pending = {"status": JobStatus.PENDING, "reason": None, "not_before_ms": 0}
                changed, decision = decisions.change(job, revision, **pending)
                if await self._commit(decision) is None:  # else its run has just ended
                    self._jobs.ended(job.id)
                    self._jobs.queued(changed)
                    logger.warning(
                        "nobody ran %s, which was said to run; it is queued again",
                        job.id,
                        extra={"action": "job.orphaned", "job": job.id},
                    )

    async def _all(self, collection: str, terms: list[str]) -> list[Document]:
        found: list[Document] = []
        after: str | None = None
        while True:
            page = await patiently(
                lambda after=after: self._store.list_documents(  # type: ignore[misc]
                    collection, None, terms, after, BATCH_MAX, descending=False
                )
            )
            found.extend(page)
            if len(page) < BATCH_MAX:
                return found
            after = page[-1].key

    # Messages

    async def _heard(self, messages: tuple[StoredMessage, ...]) -> None:
        """What is about jobs makes a round; what is about schedules is the planner's."""
        heard = [Heard.of(stored) for stored in messages]
        plans = [one for one in heard if self._plans.takes(one.message)]
        jobs = [one for one in heard if not self._plans.takes(one.message)]
        async with self._deciding:
            began_s = self._now_s()
            await self._round(jobs)
            if jobs:
                self._meter.observe("troupe_round_seconds", self._now_s() - began_s)
        for one in jobs:
            self._planner.about_job(one.job_id)
        for one in plans:
            assert one.message is not None
            await self._plans.handle(one.stored, one.message)

    async def _round(self, heard: list[Heard]) -> None:
        """Decide on all that has come and is due, start what may start, write it together."""
        await self._records.read(one.job_id for one in heard if one.job_id and not one.over)
        units: list[Unit] = []
        decided_on: set[str | None] = set()
        for one in heard:
            if one.reads_more and one.job_id in decided_on:  # it is to read what that has led to
                await self._write(units)
                units = []
            units.append(await self._unit(one))
            decided_on.add(one.job_id)
        due = self._jobs.take_due(self._clock.now_ms())
        await self._records.read(due)
        for job_id in due:
            self._release(job_id)
        units += await self._starts()
        units += self._news()
        if self._desk.measured:
            units.append(Unit(decisions.measured(self._desk.service)))
            self._desk.measured = False
        await self._write(units)
        self._records.trim()

    async def _unit(self, heard: Heard) -> Unit:
        try:
            decision = await self._decide(heard)
        except (InvalidIdError, InvalidMessageError, KeyError, TypeError, ValueError) as error:
            decision = refuse("invalid_message", f"{type(error).__name__}: {error}")
        if decision.job is not None:
            self._records.wrote(decision.job)
        return Unit(decision, heard)

    async def _decide(self, heard: Heard) -> Decision:
        message = heard.message
        if message is None:
            raise InvalidMessageError(heard.error)
        organization, _ = split(heard.stored.sender)
        if message.message_type == "scheduler.status":
            return Decision(reply={"ok": True, **self.status()})
        if message.message_type.startswith("scheduler."):
            return self._scheduler_control(organization, message)
        if message.message_type in HOLDING:
            return self._hold(organization, message)
        if message.message_type not in (RETRY, ENDED) and not self._desk.knows(
            message.message_type
        ):
            raise KeyError(message.message_type)
        job_id = message.content["jobId"]
        if heard.over:
            finished = self._desk.finished(heard.stored.sender, message.content)
            if finished is not None:
                return finished
            await self._records.read([job_id])
        known = self._records.get(job_id)
        if known is None or organization not in (SYSTEM, known.organization):
            return refuse("not_found", job_id)
        return await self._decide_on(known, message)

    async def _decide_on(self, known: Record, message: Message) -> Decision:
        job, revision = known.job, known.revision
        if message.message_type == ENDED:
            asked = await patiently(lambda: self._store.get("asked", job.id))
            word = asked.body.decode() if asked is not None else None
            return self._desk.ended(job, revision, message, word)
        if message.message_type != RETRY:
            return self._desk.decide(job, revision, message)
        key = decisions.letter_key(job.id)
        letter = await patiently(lambda: self._store.get(DEAD_LETTERS, key))
        return self._desk.retry(job, revision, message, letter)

    # Writing

    async def _write(self, units: list[Unit]) -> None:
        """Commit a round; what is refused is decided on again, each by itself, as it is by now."""
        parts = packed(units)
        refused = await asyncio.gather(*(self._written(part) for part in parts))
        for part, again in zip(parts, refused, strict=True):
            for unit in part if again else ():
                await self._again(unit)

    async def _written(self, part: list[Unit]) -> bool:
        """Write units in one commit; whether that was refused."""
        whole = Decision()
        for unit in part:
            whole.puts += unit.decision.puts
            whole.sends += unit.decision.sends
            whole.feed += unit.decision.feed
        acks = tuple(ack for unit in part if (ack := unit.ack) is not None)
        try:
            if await self._commit(whole, acks) is not None:
                return True
        except (StoreError, ValueError):  # one of them can't be written: which?
            if len(part) == 1:
                raise
            return True
        now_ms = self._clock.now_ms()
        for unit in part:
            self._observed.saw(unit, now_ms)
        return False

    async def _again(self, unit: Unit) -> None:
        """Decide on one thing anew, from what the store says now."""
        if unit.starts is not None:
            await self._check(unit.starts)
        if unit.heard is None:
            return
        for _ in range(DECIDE_MAX):
            await self._reread(unit.heard)
            unit = await self._unit(unit.heard)
            assert unit.heard is not None and unit.ack is not None
            refused = await self._commit(unit.decision, (unit.ack,))
            if refused is None:
                self._observed.saw(unit, self._clock.now_ms())
                return
            await self._reread(unit.heard)
            if refused != "revision_conflict":
                return

    async def _reread(self, heard: Heard) -> None:
        """Forget what was thought to be so of the message's job and of its agent."""
        where = self._held_by(heard)
        if heard.job_id is not None:
            known = await self._records.read_anew(heard.job_id)
            if known is not None and known.job.agent_id is not None:
                where = address(known.job.organization_id, known.job.agent_id)
        if where is not None:
            document = await patiently(lambda: self._store.get(HOLDS, where))
            self._desk.holds.reload(where, document)

    def _held_by(self, heard: Heard) -> str | None:
        """The agent that a message has held or let go."""
        message = heard.message
        if message is None or message.message_type not in HOLDING:
            return None
        with suppress(InvalidIdError, KeyError, TypeError):
            return address(split(heard.stored.sender)[0], message.content["agentId"])
        return None

    async def _commit(self, decision: Decision, acks: tuple[Ack, ...] = ()) -> str | None:
        """Write one decision; the reason if it was refused (or had landed already)."""
        answer = await self._group.commit(decision.commit(self._fence, acks))
        if not isinstance(answer, Refused):
            return None
        if answer.reason in ("stale_epoch", "stale_incarnation"):
            raise FencedError(answer.reason)
        logger.warning(
            "a decision of the scheduler was refused: %s %s",
            answer.reason,
            answer.detail,
            extra={"action": "commit.refused", "reason": answer.reason},
        )
        return answer.reason

    def _hold(self, organization: str, message: Message) -> Decision:
        """`agent.pause` or `agent.resume` `{agentId, by}`, of the sender's organization."""
        where = address(organization, message.content["agentId"])
        by = str(message.content.get("by") or message.sender)
        held = message.message_type == "agent.pause"
        return self._desk.holds.ask(where, held, by, self._clock.now_ms())

    # The scheduler as a whole

    def _scheduler_control(self, organization: str, message: Message) -> Decision:
        verb = message.message_type.removeprefix("scheduler.")
        if verb not in ("pause", "resume", "drain"):
            raise KeyError(message.message_type)
        if organization not in (SYSTEM, HOME):
            return refuse("not_yours", f"only {HOME} may {verb} the scheduler")
        now_ms = self._clock.now_ms()
        self._control = Control(
            paused=verb != "resume",
            draining=verb == "drain",
            by=str((message.content or {}).get("by", message.sender)),
            at=iso(now_ms),
        )
        put = _put("control", self._control)
        feed, reply = [self._stands(now_ms)], {"ok": True, **self.status()}
        return Decision(puts=[put], feed=feed, reply=reply)

    def _news(self) -> list[Unit]:
        """Word to everybody how the queue stands, when that has changed; not all the time."""
        counts, now_s = self._jobs.counts(), self._now_s()
        if counts == self._told or now_s < self._tell_at_s:
            return []
        self._told, self._tell_at_s = counts, now_s + TELL_EVERY_S
        return [Unit(Decision(feed=[self._stands(self._clock.now_ms())]))]

    def _stands(self, now_ms: int) -> FeedEvent:
        # of the system, so that every organization is told; so nobody's name is in it
        stats = {name: value for name, value in self.status().items() if name not in PRIVATE}
        return feed_event(SYSTEM, "scheduler:status", {"stats": stats}, ("scheduler",), now_ms)

    # What the planner fires

    def _admit(self, jobs: Sequence[AgentJob]) -> None:
        now_ms = self._clock.now_ms()
        for job in jobs:
            self._jobs.admit(job, now_ms)
        self._admitted.set()

    async def _dispatch_admitted(self) -> None:
        while True:
            await self._admitted.wait()
            self._admitted.clear()
            async with self._deciding:
                await self._dispatch()
            if self._look_again:
                self._look_again = False
                self._admitted.set()

    def _fired(self, late_ms: int) -> None:
        self._meter.observe("troupe_schedule_late_seconds", late_ms / 1000)

    def _is_paused(self) -> bool:
        return self._control.paused

    # Dispatch

    async def _dispatch(self) -> None:
        """Start as many jobs as the limits allow, all at once."""
        await self._write(await self._starts())

    async def _starts(self) -> list[Unit]:
        chosen: list[str] = []
        began_s = self._now_s()
        while not self._control.paused and (place := self._jobs.next()) is not None:
            chosen.append(place.job_id)
        if chosen:
            self._meter.observe("troupe_selection_seconds", self._now_s() - began_s)
        await self._records.read(chosen)
        started = (self._start(job_id) for job_id in chosen)
        return [unit for unit in started if unit is not None]

    def _start(self, job_id: str) -> Unit | None:
        known = self._records.get(job_id)
        if known is None or known.job.status not in (JobStatus.PENDING, JobStatus.WAITING):
            self._jobs.ended(job_id)
            return None
        self._records.forget(job_id)  # from here on its host writes it
        job = self._desk.limited(known.job)
        decision = decisions.start(job, known.revision, self._clock.now_ms())
        return Unit(decision, starts=job_id)

    async def _check(self, job_id: str) -> None:
        """A start was refused: it had landed, or the record changed; go by the record."""
        known = await self._records.read_anew(job_id)
        if known is None:
            self._jobs.ended(job_id)
        elif known.job.status is not JobStatus.RUNNING:
            self._jobs.ended(job_id)
            self._jobs.admit(known.job, self._clock.now_ms())
            self._look_again = True
        self._records.forget(job_id)

    # Time

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _wait_s(self) -> float:
        if self._look_again:
            self._look_again = False
            return 0.0
        due_ms = self._jobs.next_due_ms()
        if due_ms is None:
            return self._check_s
        return min(self._check_s, max(0.0, (due_ms - self._clock.now_ms()) / 1000))

    def _release(self, job_id: str) -> None:
        """Queue a job whose time has come."""
        known = self._records.get(job_id)
        if known is None:
            return
        if known.job.status is JobStatus.PENDING:
            self._jobs.admit(known.job, self._clock.now_ms())
        elif known.job.status is JobStatus.WAITING:
            self._jobs.queued(known.job)  # its record goes on saying what it waits for: it may yet


def _put(key: str, record: WireModel) -> Put:
    return Put(COLLECTION, key, SYSTEM, record.to_json())
