"""The dispatcher: decides on what has come, starts what may start, writes both together.

To start a job is to commit `status=running` together with the message `job.run`
for its agent; from there on the host that claims the agent is the record's
writer until `job.ended` comes back.  Each record is written against the
revision it was decided on.  When a commit of many decisions is refused, each is
made again by itself, from what the store says by then.  What can't be written
even so is refused, or its job has failed: nobody else waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from runtime.clock import Clock
from runtime.errors import InvalidIdError, InvalidMessageError
from runtime.ids import SYSTEM, address, split
from runtime.job import AgentJob, JobStatus
from runtime.jobs import decisions
from runtime.jobs.control import HOLDING, Controls
from runtime.jobs.decisions import Decision, refuse
from runtime.jobs.desk import JobDesk
from runtime.jobs.holds import HOLDS
from runtime.jobs.records import JobRecords, Record
from runtime.jobs.rounds import (
    DECIDE_MAX,
    ENDED,
    PAUSE,
    RESUME,
    RETRY,
    UNWRITABLE,
    Heard,
    Unit,
    packed,
    rounds,
)
from runtime.jobs.seat import Seat
from runtime.jobs.table import JobTable, is_for_due_time
from runtime.jobs.units import CONFLICT, UnitWriter
from runtime.message import Message
from runtime.metrics import Meter
from runtime.observed import Observed
from runtime.patience import patiently
from runtime.schedule.queue import Place
from runtime.store.contract import DEAD_LETTERS, Store

LATER_MS: Final = 60_000
"""After which a job is started again of which not even the failure could be written."""
_STARTABLE: Final = frozenset({JobStatus.PENDING, JobStatus.WAITING})
_REFUSED: Final = {
    UNWRITABLE: (UNWRITABLE, "the store can't write what that leads to"),
    CONFLICT: ("conflict", "it is being changed by others; try again"),
}


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
        self._jobs = jobs
        self._desk = desk
        self._controls = controls
        self._clock = clock
        self._meter = meter
        self._units = UnitWriter(store, seat, Observed(meter))
        self._records = JobRecords(store)
        self._deciding = asyncio.Lock()
        """Held while something is decided about jobs and written."""
        self._news = asyncio.Event()
        """There may be something to start, or something is due sooner than was known."""
        self._until_ms: int | None = None
        """What `work` sleeps until; None: until there is news."""
        self._dues_ms: int | None = None
        """Up to when due times have been queued, if that is still to be written."""

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
        """Have jobs whose records were just written where they say: queued, waiting or paused."""
        now_ms = self._clock.now_ms()
        for job in jobs:
            self._records.forget(job.id)
            self._jobs.admit(job, now_ms)
        self._dues_ms = now_ms
        self._news.set()

    def found(self, job: AgentJob, dues_ms: int) -> None:
        """Know a job from its record, at the start of this life.

        Args:
            dues_ms: up to when those before have queued the jobs of due times; who was to
                start later, and had nobody to queue it, is late.
        """
        now_ms = self._clock.now_ms()
        self._jobs.admit(job, now_ms)
        if is_for_due_time(job) and dues_ms < job.not_before_ms <= now_ms:
            self._late(now_ms, [job.not_before_ms])

    async def heard(self, heard: Sequence[Heard]) -> None:
        """Decide on all that has come and is due, start what may start, write it together."""
        for part in rounds(heard):
            async with self._deciding:
                await self._round(part)
        due_ms = self._jobs.next_due_ms()
        if due_ms is not None and (self._until_ms is None or due_ms < self._until_ms):
            self._news.set()

    async def _round(self, heard: Sequence[Heard]) -> None:
        began_s = _now_s()
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
        if self._dues_ms is not None:
            if self._jobs.has_queued:  # else all have started, and their records say so
                units.append(Unit(decisions.dues_queued(self._dues_ms)))
            self._dues_ms = None
        if (news := self._controls.news(_now_s())) is not None:
            units.append(Unit(news))
        if self._desk.measured:
            units.append(Unit(decisions.measured(self._desk.service)))
            self._desk.measured = False
        await self._write(units)
        self._records.trim()
        if heard or units:
            self._meter.observe("troupe_round_seconds", _now_s() - began_s)

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
        if message.message_type == RETRY:
            key = decisions.letter_key(job.id)
            letter = await patiently(self._store.get, DEAD_LETTERS, key)
            return self._desk.retry(job, revision, message, letter)
        asked = None
        if message.message_type in (ENDED, PAUSE, RESUME):
            document = await patiently(self._store.get, "asked", job.id)
            asked = document.body.decode() if document is not None else None
        decide = self._desk.ended if message.message_type == ENDED else self._desk.decide
        return decide(job, revision, message, asked)

    async def _take_due(self) -> None:
        """Queue the jobs whose time has come."""
        now_ms = self._clock.now_ms()
        waited, dues = self._jobs.take_due(now_ms)
        self._late(now_ms, dues)
        await self._records.read(waited)
        for job_id in waited:
            known = self._records.get(job_id)
            # its record goes on saying what it waits for: it may wait again
            if known is not None and known.job.status is JobStatus.WAITING:
                self._jobs.queued(known.job, known.job.not_before_ms)

    def _late(self, now_ms: int, dues: Sequence[int]) -> None:
        """The jobs of these due times are in the queue from now on."""
        if dues:
            self._dues_ms = now_ms
        for due_ms in dues:
            self._meter.observe("troupe_schedule_late_seconds", (now_ms - due_ms) / 1000)

    # Starting

    async def _starts(self) -> list[Unit]:
        """As many jobs as the limits allow."""
        chosen: list[Place] = []
        began_s = _now_s()
        while not self._controls.paused and (place := self._jobs.next()) is not None:
            chosen.append(place)
        if chosen:
            self._meter.observe("troupe_selection_seconds", _now_s() - began_s)
        await self._records.read(place.job_id for place in chosen)
        started = (self._start(place) for place in chosen)
        return [unit for unit in started if unit is not None]

    def _start(self, place: Place) -> Unit | None:
        job_id = place.job_id
        known, now_ms = self._records.get(job_id), self._clock.now_ms()
        if known is None or known.job.status not in _STARTABLE:
            self._jobs.ended(job_id)
            return None
        if known.job.not_before_ms > now_ms:  # a refused decision has left another time in memory
            self._jobs.ended(job_id)
            self._jobs.admit(known.job, now_ms)
            return None
        if self._desk.holds.stops(known.job):
            self._jobs.set_aside(place, known.job.agent)
            self._news.set()  # another may have its slot
            return None
        self._records.forget(job_id)  # from here on its host writes it
        looks = known.job.status is JobStatus.WAITING
        return Unit(self._desk.start(known.job, known.revision), starts=job_id, looks=looks)

    async def _check(self, job_id: str, refused: str) -> None:
        """A start was not written; go by what the record says now, if that has changed."""
        known = await self._records.read_anew(job_id)
        if known is None:
            self._jobs.ended(job_id)
        elif known.job.status is not JobStatus.RUNNING:
            self._jobs.ended(job_id)
            if refused != CONFLICT and known.job.status in _STARTABLE:
                await self._fail(known, refused)
            else:
                self._jobs.admit(known.job, self._clock.now_ms())
                self._news.set()
        self._records.forget(job_id)

    async def _fail(self, known: Record, refused: str) -> None:
        """A job's start can't be written: it has failed. If not even that can be, it waits."""
        if await self._units.written([self._given_up(known, refused)]) is not None:
            now_ms = self._clock.now_ms()
            tried = known.job.attempts + 1  # so it is not for its due time that it waits
            later = {"not_before_ms": now_ms + LATER_MS, "attempts": tried}
            self._jobs.admit(replace(known.job, **later), now_ms)

    def _given_up(self, known: Record, refused: str, heard: Heard | None = None) -> Unit:
        return Unit(self._desk.give_up(known.job, known.revision, *_told(refused)), heard)

    # Writing

    async def _write(self, units: list[Unit]) -> None:
        """Commit a round; what is refused is decided on again, each by itself, as it is by now."""
        parts = packed(units)
        if len(parts) == 1:
            refused = [await self._units.written(parts[0])]
        else:
            refused = await asyncio.gather(*(self._units.written(part) for part in parts))
        for part, why in zip(parts, refused, strict=True):
            for unit in part if why is not None else ():
                alone = why
                if why != CONFLICT and len(part) > 1:  # one of them can't be written: which?
                    alone = await self._units.written([unit])
                if alone is not None:
                    await self._again(unit, alone)

    async def _again(self, unit: Unit, refused: str) -> None:
        """Decide on one thing anew, from what the store says now; in the end refuse it."""
        if unit.starts is not None:
            await self._check(unit.starts, refused)
        if (heard := unit.heard) is None:
            return
        for _ in range(DECIDE_MAX if refused != UNWRITABLE else 0):
            await self._reread(unit, heard)
            unit = await self._unit(heard)
            again = await self._units.written([unit])
            if again is None:
                return
            refused = again
            if refused != CONFLICT:
                break
        await self._reread(unit, heard)
        await self._refuse(unit, heard, refused)

    async def _refuse(self, unit: Unit, heard: Heard, refused: str) -> None:
        """Answer a message whose decision can't be written; of the end of a run, the job fails."""
        known = self._records.get(heard.job_id or "") if heard.ends else None
        if known is not None and not known.job.status.final:
            done = await self._units.written([self._given_up(known, refused, heard)]) is None
            self._records.forget(known.job.id)
            if done:
                return
        answer = Unit(refuse(*_told(refused)), heard)
        await self._units.write([answer])
        await self._put_back(unit, heard)

    async def _put_back(self, unit: Unit, heard: Heard) -> None:
        """Have the jobs of a decision that was not written where their records say."""
        made = unit.decision.job
        for job_id in (heard.job_id, made.id if made is not None else None):
            if job_id is None:
                continue
            known = await self._records.read_anew(job_id)
            self._jobs.forget(job_id)
            if known is not None and known.job.status is not JobStatus.RUNNING:
                self._jobs.admit(known.job, self._clock.now_ms())
        self._news.set()

    async def _reread(self, unit: Unit, heard: Heard) -> None:
        """Forget what was thought to be so of the message's job and of its agent."""
        if unit.decision.job is not None:
            self._records.forget(unit.decision.job.id)
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


def _told(refused: str) -> tuple[str, str]:
    """Code and sentence."""
    return _REFUSED.get(refused, ("conflict", f"the store has refused it: {refused}"))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
