"""What fates of due times come to in the store: one change of one schedule.  Pure.

A change is the schedule's document with its new watermark, a ledger entry for
each outcome, and the jobs of those that fire: all in one commit, under the
scheduler's fence, each document against the revision that was read.  So an
outcome, its job and the watermark are there together or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from runtime.ids import kind_of
from runtime.job import AgentJob
from runtime.jobs.decisions import Decision
from runtime.jobs.events import record_put
from runtime.plans.table import Entry
from runtime.schedule.policy import Fates, drop, extend
from runtime.schedule.record import (
    OCCURRENCES,
    REVISIONS,
    SCHEDULES,
    Cause,
    Occurrence,
    Outcome,
    Revision,
    Schedule,
    Spec,
    Streak,
    Waiting,
    encode,
    job_id,
    occurrence_id,
    revision_key,
)
from runtime.schedule.zones import TZDATA_VERSION
from runtime.store.contract import ABSENT, FeedEvent, Put, Send
from runtime.turn import feed_event

FIRED: Final = Outcome.FIRED.value
EVENT_FIELD: Final = "event"
"""Where a job's payload has the event that it was started by."""


@dataclass
class Change:
    """What is to be written about one schedule, and what is true once it is."""

    entry: Entry
    record: Schedule | None
    """None: it is deleted."""
    puts: list[Put] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    feed: list[FeedEvent] = field(default_factory=list)
    jobs: list[AgentJob] = field(default_factory=list)
    """To be where their records say from now on."""
    fired_ms: list[int] = field(default_factory=list)
    """When each due time that is fired, and was not missed before, was to start."""
    ended: Sequence[Streak] = ()
    """Due times that have an outcome by it and no job."""
    new_spec: bool = False

    def finish(self) -> Change:
        """Add the schedule's own document."""
        body = encode(self.record) if self.record is not None else None
        record = self.record or self.entry.record
        terms = (f"agent={record.agent_id}",) if body is not None else ()
        revision = self.entry.doc_revision
        self.puts.append(
            Put(SCHEDULES, self.entry.key, record.organization_id, body, terms, revision)
        )
        return self

    def move(self, moved: Decision) -> None:
        """Have what was decided on a job of it written too."""
        assert moved.job is not None
        self.puts += moved.puts
        self.feed += moved.feed
        self.jobs.append(moved.job)

    def publish(self, event: str, data: dict[str, Any], now_ms: int) -> None:
        """Tell the agent's room and the scheduler's."""
        record = self.record or self.entry.record
        about = {"agentId": record.agent_id, "schedule": record.name, **data}
        rooms = (f"agent:{record.agent_id}", "scheduler")
        self.feed.append(feed_event(record.organization_id, event, about, rooms, now_ms))


@dataclass(frozen=True)
class Facts:
    """What a change is made under."""

    now_ms: int
    cause: Cause = "time"
    by: str | None = None
    event_id: str | None = None
    head: str | None = None
    """The repository's commit."""


def settled(
    entry: Entry,
    record: Schedule,
    fates: Fates,
    facts: Facts,
    *,
    first_ms: int | None = None,
    accounted_ms: int | None = None,
    next_ms: int | None = None,
) -> Change:
    """The change that fates come to; `finish` it to have it written.

    Args:
        record: what is to be built on, as a rule the entry's.
        first_ms: the first due time that was settled.
        accounted_ms: the new watermark; None: it stays, and so does the next due time.
    """
    spec = entry.spec
    if spec.kind == "event" and facts.cause == "time":
        facts = replace(facts, cause="event")
    change = Change(entry, record)
    runs = _end(change, record, fates.runs, facts, first_ms)
    change.ended = fates.runs
    changed: dict[str, Any] = {"waiting": tuple(fates.waiting)}
    if accounted_ms is not None:
        changed |= {
            "accounted_ms": accounted_ms,
            "next_ms": next_ms,
            "wake_ms": None if next_ms is None else entry.start_ms(next_ms),
            "streak": next((run for run in runs if run.to_ms == accounted_ms), None),
        }
    if fates.runs:
        changed["last_outcome"] = fates.runs[-1].outcome
    if fates.fires:
        started = [_fire(change, record, spec, one, facts) for one in fates.fires]
        changed |= {
            "active": (*record.active, *started),
            "runs": record.runs + len(started),
            "last_due_ms": fates.fires[-1].due_ms,
            "last_job_id": started[-1],
            "last_outcome": FIRED,
            "seen_head": facts.head or record.seen_head,
        }
    change.record = msgspec.structs.replace(record, **changed)
    return change


def _end(
    change: Change, record: Schedule, runs: Sequence[Streak], facts: Facts, first_ms: int | None
) -> list[Streak]:
    """Put outcomes without a job into the ledger, in ranges where nothing else is between."""
    before = record.streak
    written = []
    for run in runs:
        if (
            before is not None
            and run.from_ms == first_ms
            and before.to_ms == record.accounted_ms
            and (before.outcome, before.reason) == (run.outcome, run.reason)
        ):
            run = extend(before, run.to_ms, run.count)  # noqa: PLW2901 - it is the same, grown
        change.puts.append(_ended(record, run, facts))
        written.append(run)
    return written


def _ended(record: Schedule, run: Streak, facts: Facts) -> Put:
    occurrence = Occurrence(
        id=occurrence_id(record.id, record.revision, run.from_ms),
        schedule_id=record.id,
        agent_id=record.agent_id,
        name=record.name,
        revision=record.revision,
        outcome=run.outcome,
        due_ms=run.from_ms,
        at_ms=facts.now_ms,
        cause=facts.cause,
        to_ms=run.to_ms if run.count > 1 else None,
        count=run.count,
        reason=run.reason,
        by=facts.by,
        event_id=facts.event_id,
    )
    # a range is written anew as it grows: the schedule's own document is what guards it
    grows = run.count > 1
    return _ledger(record, occurrence, guarded=not grows)


def _ledger(record: Schedule, occurrence: Occurrence, *, guarded: bool) -> Put:
    terms = (f"of={record.agent_id}/{record.name}",)
    return Put(
        OCCURRENCES,
        occurrence.id,
        record.organization_id,
        encode(occurrence),
        terms,
        ABSENT if guarded else -1,
    )


@dataclass(frozen=True)
class Run:
    """One due time as it will run: all that does not depend on when it is decided."""

    due_ms: int
    occurrence: Occurrence
    job: AgentJob
    put: Put


@dataclass(frozen=True)
class Ready:
    """A schedule's next run with what it writes, but for the moment at which it is decided.

    It holds for the record that it was made of and for the repository's commit of then.
    """

    of: Schedule
    head: str | None
    run: Run
    record: Schedule
    """The record once the run is fired."""
    put: Put
    """That record's."""


def prepared(entry: Entry, head: str | None) -> Ready | None:
    """What can be made of the next due time beforehand; None: it has to be looked at then.

    Args:
        head: the repository's commit.
    """
    record = entry.record
    due_ms, plan = record.next_ms, entry.plan
    if due_ms is None or plan is None or not _is_plain(record, entry.spec):
        return None
    next_ms = plan.next_after(due_ms)
    start_ms = record.wake_ms if record.wake_ms is not None else due_ms
    run = _run(record, entry.spec, Waiting(due_ms, False), Facts(start_ms), not_before_ms=start_ms)
    then = msgspec.structs.replace(
        record,
        accounted_ms=due_ms,
        next_ms=next_ms,
        wake_ms=None if next_ms is None else entry.start_ms(next_ms),
        streak=None,
        active=(*record.active, run.job.id),
        runs=record.runs + 1,
        last_due_ms=due_ms,
        last_job_id=run.job.id,
        last_outcome=FIRED,
        seen_head=head or record.seen_head,
    )
    return Ready(record, head, run, then, Change(entry, then).finish().puts[0])


def _is_plain(record: Schedule, spec: Spec) -> bool:
    """Whether a due time of it will start whatever the moment, unless the scheduler is paused."""
    return (
        record.status == "active"
        and not record.waiting
        and (not record.active or spec.overlap == "allow")
        and not spec.only_if_changed
        and spec.budget_usd_per_day is None
    )


def fired(entry: Entry, ready: Ready, now_ms: int) -> Change:
    """The change of a due time that meets nothing, as `settled` makes it; its job waits for it."""
    run = ready.run
    start_ms = run.occurrence.at_ms
    occurrence = msgspec.structs.replace(
        run.occurrence, at_ms=now_ms, late_ms=max(0, now_ms - start_ms)
    )
    puts = [_ledger(ready.of, occurrence, guarded=True), run.put, ready.put]
    return Change(entry, ready.record, puts, jobs=[run.job], fired_ms=[start_ms])


def _fire(change: Change, record: Schedule, spec: Spec, one: Waiting, facts: Facts) -> str:
    """The ledger's entry and the job of a due time; the job's id."""
    run = _run(record, spec, one, facts)
    late_ms = max(0, facts.now_ms - change.entry.start_ms(one.due_ms))
    occurrence = msgspec.structs.replace(run.occurrence, late_ms=late_ms)
    change.puts += [_ledger(record, occurrence, guarded=True), run.put]
    change.jobs.append(run.job)
    if facts.cause == "time" and not one.late:
        change.fired_ms.append(facts.now_ms - late_ms)
    return run.job.id


def _run(record: Schedule, spec: Spec, one: Waiting, facts: Facts, not_before_ms: int = 0) -> Run:
    mark = facts.event_id or "" if facts.cause == "manual" else ""
    id = occurrence_id(record.id, record.revision, one.due_ms, mark)
    payload = spec.payload if one.event is None else {**spec.payload, EVENT_FIELD: one.event}
    job = AgentJob.new(
        id=job_id(id, one.due_ms),
        organization_id=record.organization_id,
        agent_type=kind_of(record.agent_id),
        agent_id=record.agent_id,
        now_ms=facts.now_ms,
        not_before_ms=not_before_ms,
        priority=spec.priority,
        payload=payload,
        repository=spec.repository,
        limit_key=spec.limit_key,
        occurrence_id=id,
        **({"max_attempts": spec.max_attempts} if spec.max_attempts is not None else {}),
    )
    occurrence = Occurrence(
        id=id,
        schedule_id=record.id,
        agent_id=record.agent_id,
        name=record.name,
        revision=record.revision,
        outcome=FIRED,
        due_ms=one.due_ms,
        at_ms=facts.now_ms,
        cause=facts.cause,
        job_id=job.id,
        late=one.late,
        by=facts.by,
        event_id=one.event_id or facts.event_id,
    )
    return Run(one.due_ms, occurrence, job, record_put(job, ABSENT))


def meaningless(entry: Entry, error: Exception, now_ms: int) -> Change:
    """What was once accepted can't be read any more: off the schedule, for a person to see."""
    record = msgspec.structs.replace(
        entry.record, status="error", error=str(error), next_ms=None, wake_ms=None
    )
    change = Change(entry, record)
    change.publish("schedule:error", {"error": str(error)}, now_ms)
    return change.finish()


def retimed(entry: Entry, facts: Facts) -> Change:
    """The change of a schedule whose zone's rules have another release than its due times.

    A revision from the watermark on; what waits was due by the old rules and is superseded.
    """
    before = entry.record
    fates = drop(before.waiting, Outcome.SUPERSEDED, "tzdata")
    change = settled(entry, before, fates, facts)
    assert change.record is not None and entry.plan is not None
    next_ms = entry.plan.next_after(before.accounted_ms)
    change.record = msgspec.structs.replace(
        change.record,
        revision=before.revision + 1,
        streak=None,
        next_ms=next_ms,
        wake_ms=None if next_ms is None else entry.start_ms(next_ms),
        tzdata=TZDATA_VERSION,
        changed_by="scheduler",
        reason=f"time zones are those of {TZDATA_VERSION} now",
    )
    change.puts.append(revision_put(change.record, before.accounted_ms))
    return change.finish()


def revision_put(record: Schedule, from_ms: int, to_ms: int | None = None) -> Put:
    """The document of a record's present revision."""
    revision = Revision(
        schedule_id=record.id,
        agent_id=record.agent_id,
        name=record.name,
        revision=record.revision,
        spec=record.spec,
        from_ms=from_ms,
        tzdata=record.tzdata,
        by=record.changed_by,
        why=record.reason,
        to_ms=to_ms,
    )
    key = revision_key(record.id, record.revision)
    terms = (f"of={record.agent_id}/{record.name}",)
    return Put(REVISIONS, key, record.organization_id, encode(revision), terms)
