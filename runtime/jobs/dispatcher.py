"""The dispatcher: decides on what has come, starts what may start, writes both together.

To start a job is to commit `status=running` together with the message `job.run`
for its agent; from there on the host that claims the agent is the record's
writer until `job.ended` comes back.  Each record is written against the
revision it was decided on.  When a commit of many decisions is refused, each is
made again by itself, from what the store says by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from runtime.clock import Clock
from runtime.errors import InvalidIdError, InvalidMessageError, StoreError
from runtime.ids import SYSTEM, address, split
from runtime.job import AgentJob, JobStatus
from runtime.jobs import decisions
from runtime.jobs.control import HOLDING, Controls
from runtime.jobs.decisions import Decision, refuse
from runtime.jobs.desk import JobDesk
from runtime.jobs.holds import HOLDS
from runtime.jobs.records import JobRecords, Record
from runtime.jobs.rounds import DECIDE_MAX, ENDED, RETRY, Heard, Unit, packed, rounds
from runtime.jobs.seat import Seat
from runtime.jobs.table import JobTable
from runtime.message import Message
from runtime.metrics import Meter
from runtime.observed import Observed
from runtime.patience import patiently
from runtime.store.contract import DEAD_LETTERS, Store


class Dispatcher:
    """One for each life of a scheduler; its rounds exclude each other."""

    def __init__(
        self,
        store: Store,
        seat: Seat,
        jobs: JobTable,
        desk: JobDesk,
        controls: Controls,
        clock: Clock,
        meter: Meter,
    ) -> None:
        self._store = store
        self._seat = seat
        self._jobs = jobs
        self._desk = desk
        self._controls = controls
        self._clock = clock
        self._meter = meter
        self._observed = Observed(meter)
        self._records = JobRecords(store)
        self._deciding = asyncio.Lock()
        """Held while something is decided about jobs and written."""
        self._news = asyncio.Event()
        """There may be something to start, or something is due sooner than was known."""
        self._until_ms: int | None = None
        """What `work` sleeps until; None: until there is news."""

    async def work(self) -> None:
        """Start what nobody asks for: what was admitted, put back, or is due; until cancelled."""
        while True:
            self._until_ms = self._jobs.next_due_ms()
            wait_s = None
            if self._until_ms is not None:
                wait_s = max(0.0, (self._until_ms - self._clock.now_ms()) / 1000)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            self._news.clear()
            async with self._deciding:
                await self._round(())

    def admit(self, jobs: Sequence[AgentJob]) -> None:
        """Queue jobs whose records were just written, or let them wait for their time."""
        now_ms = self._clock.now_ms()
        for job in jobs:
            self._jobs.admit(job, now_ms)
        self._news.set()

    async def heard(self, heard: Sequence[Heard]) -> None:
        """Decide on all that has come and is due, start what may start, write it together."""
        for part in rounds(heard):
            async with self._deciding:
                began_s = _now_s()
                await self._round(part)
                if part:
                    self._meter.observe("troupe_round_seconds", _now_s() - began_s)
        due_ms = self._jobs.next_due_ms()
        if due_ms is not None and (self._until_ms is None or due_ms < self._until_ms):
            self._news.set()

    async def _round(self, heard: Sequence[Heard]) -> None:
        await self._records.read(one.job_id for one in heard if one.job_id and not one.over)
        units: list[Unit] = []
        decided_on: set[str | None] = set()
        for one in heard:
            if one.reads_more and one.job_id in decided_on:  # it is to read what that has led to
                await self._write(units)
                units = []
            units.append(await self._unit(one))
            decided_on.add(one.job_id)
        await self._take_due()
        units += await self._starts()
        if (news := self._controls.news(_now_s())) is not None:
            units.append(Unit(news))
        if self._desk.measured:
            units.append(Unit(decisions.measured(self._desk.service)))
            self._desk.measured = False
        await self._write(units)
        self._records.trim()

    # Deciding

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
        if self._controls.takes(message):
            return self._controls.decide(organization, message)
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
            asked = await patiently(self._store.get, "asked", job.id)
            word = asked.body.decode() if asked is not None else None
            return self._desk.ended(job, revision, message, word)
        if message.message_type != RETRY:
            return self._desk.decide(job, revision, message)
        key = decisions.letter_key(job.id)
        letter = await patiently(self._store.get, DEAD_LETTERS, key)
        return self._desk.retry(job, revision, message, letter)

    async def _take_due(self) -> None:
        """Queue the jobs whose time has come."""
        now_ms = self._clock.now_ms()
        waited, dues = self._jobs.take_due(now_ms)
        for due_ms in dues:
            self._meter.observe("troupe_schedule_late_seconds", (now_ms - due_ms) / 1000)
        await self._records.read(waited)
        for job_id in waited:
            known = self._records.get(job_id)
            # its record goes on saying what it waits for: it may wait again
            if known is not None and known.job.status is JobStatus.WAITING:
                self._jobs.queued(known.job)

    # Starting

    async def _starts(self) -> list[Unit]:
        """As many jobs as the limits allow."""
        chosen: list[str] = []
        began_s = _now_s()
        while not self._controls.paused and (place := self._jobs.next()) is not None:
            chosen.append(place.job_id)
        if chosen:
            self._meter.observe("troupe_selection_seconds", _now_s() - began_s)
        await self._records.read(chosen)
        started = (self._start(job_id) for job_id in chosen)
        return [unit for unit in started if unit is not None]

    def _start(self, job_id: str) -> Unit | None:
        known, now_ms = self._records.get(job_id), self._clock.now_ms()
        if known is None or known.job.status not in (JobStatus.PENDING, JobStatus.WAITING):
            self._jobs.ended(job_id)
            return None
        if known.job.not_before_ms > now_ms:  # a refused decision has left another time in memory
            self._jobs.ended(job_id)
            self._jobs.admit(known.job, now_ms)
            return None
        self._records.forget(job_id)  # from here on its host writes it
        return Unit(self._desk.start(known.job, known.revision), starts=job_id)

    async def _check(self, job_id: str) -> None:
        """A start was refused: it had landed, or the record changed; go by the record."""
        known = await self._records.read_anew(job_id)
        if known is None:
            self._jobs.ended(job_id)
        elif known.job.status is not JobStatus.RUNNING:
            self._jobs.ended(job_id)
            self._jobs.admit(known.job, self._clock.now_ms())
            self._news.set()
        self._records.forget(job_id)

    # Writing

    async def _write(self, units: list[Unit]) -> None:
        """Commit a round; what is refused is decided on again, each by itself, as it is by now."""
        parts = packed(units)
        if len(parts) == 1:
            refused = [await self._written(parts[0])]
        else:
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
            if await self._seat.write(whole, acks) is not None:
                return True
        except (StoreError, ValueError):  # one of them can't be written: which?
            if len(part) == 1:
                raise
            return True
        self._observed.saw(part, self._clock.now_ms())
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
            refused = await self._seat.write(unit.decision, (unit.ack,))
            if refused is None:
                self._observed.saw([unit], self._clock.now_ms())
                return
            await self._reread(unit.heard)
            if refused != "revision_conflict":
                return

    async def _reread(self, heard: Heard) -> None:
        """Forget what was thought to be so of the message's job and of its agent."""
        where = _held_by(heard)
        if heard.job_id is not None:
            known = await self._records.read_anew(heard.job_id)
            if known is not None and known.job.agent_id is not None:
                where = address(known.job.organization_id, known.job.agent_id)
        if where is not None:
            document = await patiently(self._store.get, HOLDS, where)
            self._desk.holds.reload(where, document)


def _held_by(heard: Heard) -> str | None:
    """The agent that a message has held or let go."""
    message = heard.message
    if message is None or message.message_type not in HOLDING:
        return None
    with suppress(InvalidIdError, KeyError, TypeError):
        return address(split(heard.stored.sender)[0], message.content["agentId"])
    return None


def _now_s() -> float:
    return asyncio.get_running_loop().time()
