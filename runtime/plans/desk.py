"""What each message about a schedule leads to, by message type.

    schedule.set      {agentId, schedule, by, ifRevision?}     made, or changed
    schedule.delete   {agentId, name, by, reason?}             gone; what waited is superseded,
                                                               what was decided early cancelled
    schedule.pause    {agentId, name, by, reason?, drain?}     nothing starts any more
    schedule.resume   {agentId, name, by, reason?}             from PAUSED or ERROR
    schedule.trigger  {agentId, name, by, reason?}             one run now
    schedule.event    {event, repository?, branch?, commit?, data?, by}

The answer is {ok: true, ...} or {ok: false, code, detail}.  A message sees a
schedule whose due times are settled up to now, and what it leads to is written
in the commit that acknowledges it; of an event, in several of which that is the
last (`plans.events`).  Whether its sender may ask was decided at the route; whose
schedule it is, is decided here, by the sender's organization.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from pydantic import ValidationError

from runtime.errors import InvalidScheduleError, StoreError, TroupeError, UndoneError
from runtime.ids import SCHEDULER_AGENT, AgentId, Ids, agent_id, split
from runtime.job import JobStatus
from runtime.jobs import decisions
from runtime.jobs.decisions import Decision, refuse
from runtime.message import Message
from runtime.plans.book import CHUNK
from runtime.plans.events import hear
from runtime.plans.logged import asked
from runtime.plans.planner import Planner, cancels
from runtime.plans.table import Entry
from runtime.plans.writer import Change, Facts, revision_put, settled
from runtime.schedule.policy import Fates, drop
from runtime.schedule.record import (
    DEFAULT_NAME,
    Outcome,
    Schedule,
    Spec,
    Waiting,
    encode,
    schedule_key,
)
from runtime.schedule.spec import FieldError, ScheduleBody, plan_of, same, same_times, spec_of
from runtime.schedule.zones import TZDATA_VERSION
from runtime.store.contract import Ack, Put, StoredMessage
from runtime.turn import to_json

PREFIX: Final = "schedule."
logger = logging.getLogger(__name__)

Reply = dict[str, Any]
Answer = tuple[list[Change], list[Put], Reply]


class PlanDesk:
    """Decides about schedules and has it written; one for each life of a scheduler."""

    def __init__(self, planner: Planner, ids: Ids) -> None:
        self._planner = planner
        self._ids = ids
        self._handlers: dict[str, Callable[[str, StoredMessage, Message], Awaitable[Answer]]] = {
            "set": self._set,
            "delete": self._delete,
            "pause": self._pause,
            "resume": self._resume,
            "trigger": self._trigger,
            "event": self._event,
        }

    def takes(self, message: Message | None) -> bool:
        """Whether the message is one about schedules."""
        return message is not None and message.message_type.startswith(PREFIX)

    async def handle(self, stored: StoredMessage, message: Message) -> None:
        """Do what a message asks for, and acknowledge it."""
        await self._planner.believe()
        async with self._planner.lock:
            answer = await self._decided(stored, message)
            refused = await self._written(stored, answer)
            if refused == "revision_conflict":  # it was written meanwhile: decide on what is there
                answer = await self._decided(stored, message)
                refused = await self._written(stored, answer)
            if refused == "revision_conflict":
                answer = _refused("conflict", "it is being changed by others; try again")
                refused = await self._written(stored, answer)
            elif refused == "unwritable":
                answer = _refused("unwritable", "the store can't write what that leads to")
                refused = await self._written(stored, answer)
        if refused is None:
            asked(stored, message, answer[2])
        self._planner.wake()

    async def _written(self, stored: StoredMessage, answer: Answer) -> str | None:
        """Why it was refused; `unwritable`: the store can't write it, and nothing of it is there.

        Of many schedules some may be written all the same; each says what it has seen.
        """
        changes, puts, reply = answer
        parts = [changes[at : at + CHUNK] for at in range(0, len(changes), CHUNK)] or [[]]
        for part in parts[:-1]:
            if refused := await self._planner.book.write(part):
                return refused
        acks = (Ack(stored.message_id, to_json(reply)),)
        try:
            return await self._planner.book.write(parts[-1], acks, puts)
        except UndoneError:
            raise
        except (StoreError, ValueError) as error:
            if not (changes or puts):  # not even that it is refused
                raise
            logger.critical(
                "%s can't be written: %s",
                stored.message_id,
                error,
                extra={"action": "schedule.unwritable", "id": stored.message_id},
            )
            return "unwritable"

    async def _decided(self, stored: StoredMessage, message: Message) -> Answer:
        organization, _ = split(stored.sender)
        try:
            handler = self._handlers[message.message_type.removeprefix(PREFIX)]
            return await handler(organization, stored, message)
        except (TroupeError, KeyError, TypeError, ValueError, AttributeError) as error:
            return _refused("invalid_message", f"{type(error).__name__}: {error}")

    async def _entry(self, organization: str, message: Message) -> Entry | None:
        """The schedule that is meant, its due times settled up to now."""
        content = message.content
        agent = agent_id(content["agentId"])
        name = content.get("name")
        key = schedule_key(organization, agent, DEFAULT_NAME if name is None else name)
        entry = self._planner.book.table.get(key)
        if entry is not None:
            await self._planner.settle_due([entry])
            entry = self._planner.book.table.get(key)
        return entry

    # set

    async def _set(self, organization: str, stored: StoredMessage, message: Message) -> Answer:
        content = message.content
        agent, now_ms = agent_id(content["agentId"]), self._planner.clock.now_ms()
        asked_for = _read(content["schedule"], agent, now_ms)
        if isinstance(asked_for, str):
            return _refused("invalid_schedule", asked_for)
        body, spec = asked_for
        named = {**content, "name": body.name}
        entry = await self._entry(organization, replace(message, content=named))
        by, wanted = str(content.get("by") or message.sender), content.get("ifRevision")
        if entry is None:
            if wanted is not None:
                return _refused("not_found", body.name)
            entry = self._new(organization, agent, body.name, now_ms)
        elif wanted is not None and wanted != entry.record.revision:
            return _refused("changed", f"it is at revision {entry.record.revision} now")
        before = entry.record
        made = not before.revision
        if not made and same_times(spec, entry.spec) and entry.spec.start_ms == spec.start_ms:
            spec = msgspec.structs.replace(spec, anchor_ms=entry.spec.anchor_ms)
        status = before.status
        if made:
            status = "paused" if body.enabled is False else "active"
        elif body.enabled is not None and status != ("active" if body.enabled else "paused"):
            return _refused("wrong_status", f"it is {status}: pause and resume change that")
        said = {"changed_ms": now_ms, "changed_by": by, "reason": body.reason}
        if made or not same(spec, entry.spec) or before.tzdata != TZDATA_VERSION:
            change = self._revised(entry, before, encode(spec), now_ms, said)
            change.puts.append(revision_put(_record(change), _record(change).accounted_ms))
        else:
            change = Change(entry, msgspec.structs.replace(before, **said))
        change.record = msgspec.structs.replace(_record(change), status=status)
        change.publish("schedule:set", _told(_record(change), by), now_ms)
        return [change.finish()], [], _answer(_record(change), created=made)

    def _new(self, organization: str, agent: str, name: str, now_ms: int) -> Entry:
        """A schedule that is about to be written for the first time."""
        record = Schedule(
            id=self._ids.new("schedule"),
            organization_id=organization,
            agent_id=agent,
            name=name,
            revision=0,
            spec=msgspec.Raw(b"{}"),
            accounted_ms=now_ms,
            created_ms=now_ms,
        )
        return Entry(schedule_key(organization, agent, name), 0, record)

    def _revised(
        self, entry: Entry, before: Schedule, spec: bytes, now_ms: int, said: dict[str, Any]
    ) -> Change:
        """The next revision: it begins where everything before is decided."""
        change = self._superseded(entry, before, now_ms)
        record = _record(change)
        since_ms = max(record.accounted_ms, now_ms)
        record = msgspec.structs.replace(
            record,
            revision=before.revision + 1,
            spec=msgspec.Raw(spec),
            accounted_ms=since_ms,
            streak=None,
            tzdata=TZDATA_VERSION,
            **said,
        )
        fresh = Entry(entry.key, entry.doc_revision, record)
        next_ms = plan_of(fresh.spec).next_after(since_ms) if fresh.spec.kind != "event" else None
        wake_ms = None if next_ms is None else fresh.start_ms(next_ms)
        change.record = msgspec.structs.replace(record, next_ms=next_ms, wake_ms=wake_ms)
        change.new_spec = True
        return change

    def _superseded(self, entry: Entry, before: Schedule, now_ms: int) -> Change:
        """What waits, or is due and has not started, ends with the revision."""
        if not before.revision:
            return Change(entry, before)
        fates = drop(before.waiting, Outcome.SUPERSEDED, "changed")
        due_ms = before.next_ms
        while due_ms is not None and due_ms <= now_ms and entry.plan is not None:
            fates.end(due_ms, Outcome.SUPERSEDED, "changed")
            due_ms = entry.plan.next_after(due_ms)
        return settled(entry, before, fates, Facts(now_ms))

    async def _delete(self, organization: str, stored: StoredMessage, message: Message) -> Answer:
        entry = await self._entry(organization, message)
        if entry is None:
            return _refused("not_found", "there is no such schedule")
        now_ms, by = self._planner.clock.now_ms(), str(message.content.get("by") or message.sender)
        change = self._superseded(entry, entry.record, now_ms)
        record = msgspec.structs.replace(_record(change), changed_by=by, reason=message.why)
        until_ms = max(record.accounted_ms, now_ms)
        change.puts.append(revision_put(record, await self._since_ms(record), until_ms))
        change.record = None
        jobs = (await self._planner.book.jobs(record.active)).values()
        early = [job.id for job in jobs if not job.started_at and job.not_before_ms > now_ms]
        unstarted = dict.fromkeys((*record.held, *early))
        change.sends += cancels(entry, unstarted, now_ms)
        change.publish("schedule:deleted", {"by": by}, now_ms)
        return [change.finish()], [], {"ok": True, "id": record.id}

    async def _since_ms(self, record: Schedule) -> int:
        """Where the present revision began."""
        revision = await self._planner.book.revision(record)
        return revision.from_ms if revision is not None else record.created_ms

    # pause and resume

    async def _pause(self, organization: str, stored: StoredMessage, message: Message) -> Answer:
        entry = await self._entry(organization, message)
        if entry is None:
            return _refused("not_found", "there is no such schedule")
        record, content, now_ms = entry.record, message.content, self._planner.clock.now_ms()
        if record.status != "active":
            return _refused("not_active", f"it is {record.status} already")
        jobs = await self._planner.book.records(record.active)
        running = [one.job.id for one in jobs if one.job.status is JobStatus.RUNNING]
        if running and not content.get("drain"):
            detail = f"{running[0]} is executing; ask with drain=true to pause after it"
            return _refused("executing", detail)
        queued = [one for one in jobs if one.job.status in (JobStatus.PENDING, JobStatus.WAITING)]
        held = tuple(one.job.id for one in queued)
        by = str(content.get("by") or message.sender)
        fates = drop(record.waiting, Outcome.SKIPPED_PAUSED, "paused")
        change = settled(entry, record, fates, Facts(now_ms, by=by))
        for one in queued:
            change.move(decisions.paused(one.job, one.revision, now_ms))
        said = {"changed_ms": now_ms, "changed_by": by, "reason": message.why}
        change.record = msgspec.structs.replace(_record(change), status="paused", held=held, **said)
        about = {"status": "paused", "by": by, **({"jobId": running[0]} if running else {})}
        change.publish("agent:paused", about, now_ms)
        return [change.finish()], [], _answer(_record(change), running=running)

    async def _resume(self, organization: str, stored: StoredMessage, message: Message) -> Answer:
        entry = await self._entry(organization, message)
        if entry is None:
            return _refused("not_found", "there is no such schedule")
        record, content, now_ms = entry.record, message.content, self._planner.clock.now_ms()
        if record.status == "active":
            return _refused("not_paused", "it is neither paused nor in ERROR")
        by = str(content.get("by") or message.sender)
        try:
            plan = entry.plan
        except InvalidScheduleError as error:
            return _refused("invalid_schedule", f"it has to be set anew: {error}")
        next_ms = plan.next_after(record.accounted_ms) if plan is not None else None
        record = msgspec.structs.replace(
            record,
            status="active",
            error=None,
            failures=0,
            held=(),
            next_ms=next_ms,
            wake_ms=None if next_ms is None else entry.start_ms(next_ms),
            changed_ms=now_ms,
            changed_by=by,
            reason=message.why,
        )
        change = Change(entry, record)
        for one in await self._planner.book.records(entry.record.held):
            if one.job.status is JobStatus.PAUSED:
                change.move(decisions.resumed(one.job, one.revision, now_ms))
        change.publish("agent:resumed", {"status": "active", "by": by}, now_ms)
        return [change.finish()], [], _answer(record)

    # trigger and events

    async def _trigger(self, organization: str, stored: StoredMessage, message: Message) -> Answer:
        entry = await self._entry(organization, message)
        if entry is None:
            return _refused("not_found", "there is no such schedule")
        record, now_ms = entry.record, self._planner.clock.now_ms()
        if record.status != "active":
            return _refused("not_active", f"it is {record.status}; resume it first")
        if record.active and entry.spec.overlap != "allow":
            return _refused("executing", f"{record.active[0]} has not ended")
        by = str(message.content.get("by") or message.sender)
        facts = Facts(
            now_ms, "manual", by, stored.message_id, self._planner.book.head(entry),
        )  # fmt: skip
        fates = Fates(fires=[Waiting(now_ms, False)], waiting=list(record.waiting))
        change = settled(entry, record, fates, facts)
        [job] = change.jobs
        return [change.finish()], [], {
            "ok": True, "jobId": job.id, "occurrenceId": job.occurrence_id,
        }  # fmt: skip

    async def _event(self, organization: str, stored: StoredMessage, message: Message) -> Answer:
        return hear(self._planner, organization, stored.message_id, message.content)


def _read(schedule: Any, agent: AgentId, now_ms: int) -> tuple[ScheduleBody, Spec] | str:
    """What is asked for an agent; or why it can't be meant."""
    if agent == SCHEDULER_AGENT:
        return "agentId: the scheduler does no jobs"
    try:
        body = ScheduleBody.model_validate(schedule)
        return body, spec_of(body, agent, now_ms)
    except ValidationError as error:
        return str(error)
    except FieldError as error:
        return f"{error.field}: {error.error}"


def _record(change: Change) -> Schedule:
    assert change.record is not None
    return change.record


def _refused(code: str, detail: str) -> Answer:
    decision: Decision = refuse(code, detail)
    assert decision.reply is not None
    return [], [], decision.reply


def _told(record: Schedule, by: str) -> dict[str, Any]:
    return {"revision": record.revision, "status": record.status, "by": by}


def _answer(record: Schedule, **more: Any) -> Reply:
    return {
        "ok": True,
        "id": record.id,
        "revision": record.revision,
        "status": record.status,
        **more,
    }
