"""Schedules and occurrences as the API answers them: times as text, the next fires shown.  Pure."""

from __future__ import annotations

from typing import Any, Final, Literal

from runtime.errors import InvalidScheduleError
from runtime.schedule.instants import local_text_of, text_of
from runtime.schedule.nightly import window_s
from runtime.schedule.plan import Plan
from runtime.schedule.record import Occurrence, Revision, Schedule, Spec, decode_spec
from runtime.schedule.spec import CatchUpBody, ScheduleBody, local_day, plan_of
from runtime.wire import WireModel

NEXT_SHOWN: Final = 5
ShownStatus = Literal["active", "executing", "paused", "draining", "error", "ended"]


class Fire(WireModel):
    """An instant, as the world and as the schedule's zone have it."""

    utc: str
    local: str


class ScheduleView(WireModel):
    """A schedule as it is answered: what was asked for, all defaults, and how it stands."""

    id: str
    agent_id: str
    name: str
    organization_id: str
    revision: int
    status: ShownStatus
    """`executing` and `draining`: a run has not ended; `ended`: nothing is due any more."""
    cron: str | None = None
    interval: str | None = None
    at: str | None = None
    event: str | None = None
    nightly: str | None = None
    timezone: str
    dialect: str | None = None
    priority: Literal["CRITICAL", "HIGH", "NORMAL", "LOW"]
    start: str | None = None
    end: str | None = None
    jitter_s: int
    overlap: str
    catch_up: CatchUpBody
    """Of a nightly: no longer than its window lasts."""
    payload: dict[str, Any]
    repository: str | None = None
    branch: str | None = None
    limit_key: str | None = None
    max_attempts: int | None = None
    only_if_changed: bool
    budget_usd_per_day: float | None = None
    next_run_at: str | None = None
    """When it starts next, with its jitter."""
    next: tuple[Fire, ...] = ()
    """The next five due times."""
    accounted_until: str
    """Every due time up to here has its outcome, or is in `waiting`."""
    waiting: tuple[str, ...] = ()
    """Due times that run later."""
    running: tuple[str, ...] = ()
    """Jobs that have not ended."""
    runs: int
    failures: int
    """Runs that failed one after the other."""
    error: str | None = None
    last_run_at: str | None = None
    """The due time that fired last."""
    last_job_id: str | None = None
    last_outcome: str | None = None
    spent_usd_today: float = 0.0
    tzdata: str
    created_at: str
    updated_at: str
    changed_by: str
    reason: str | None = None
    """Why it was changed, paused or resumed last."""
    warning: str | None = None
    """What whoever has just set it should know."""


class OccurrenceView(WireModel):
    """A due time with its outcome, or a range of them (`until`, `count`)."""

    id: str
    schedule_id: str
    agent_id: str
    name: str
    revision: int
    outcome: str
    reason: str | None = None
    due: str
    until: str | None = None
    """Of a range the last due time."""
    count: int
    decided_at: str
    cause: str
    job_id: str | None = None
    late: bool
    """It was caught up."""
    late_ms: int
    """How long after its start it was accepted."""
    by: str | None = None
    event_id: str | None = None


class RevisionView(WireModel):
    """What a schedule's due times meant, and when."""

    schedule_id: str
    agent_id: str
    name: str
    revision: int
    after: str
    """Its due times come after this ..."""
    until: str | None = None
    """... and not after this, when it was deleted; else the next revision's `after` ends it."""
    anchor: str | None = None
    """Where an interval without a start counts from."""
    schedule: dict[str, Any]
    tzdata: str
    by: str
    reason: str | None = None


def fires(plan: Plan, after_ms: int, count: int = NEXT_SHOWN) -> tuple[Fire, ...]:
    """The next due times."""
    found: list[Fire] = []
    at_ms = plan.next_after(after_ms)
    while at_ms is not None and len(found) < count:
        found.append(Fire(utc=text_of(at_ms), local=local_text_of(at_ms, plan.zone)))
        at_ms = plan.next_after(at_ms)
    return tuple(found)


def body_of(spec: Spec, name: str) -> ScheduleBody:
    """The body that a spec was made from."""
    when = {"cron": "cron", "interval": "interval", "once": "at", "event": "event"}[spec.kind]
    trigger = {"nightly": spec.nightly} if spec.nightly else {when: spec.expression}
    return ScheduleBody.model_validate(
        {
            **trigger,
            "name": name,
            "timezone": spec.timezone,
            "dialect": spec.dialect,
            "priority": spec.priority,
            "start": None if spec.start_ms is None else text_of(spec.start_ms),
            "end": None if spec.end_ms is None else text_of(spec.end_ms),
            "jitter_s": spec.jitter_s,
            "overlap": spec.overlap,
            "catch_up": _catch_up(spec, spec.catch_up.window_s),
            "payload": spec.payload,
            "repository": spec.repository,
            "branch": spec.branch,
            "limit_key": spec.limit_key,
            "max_attempts": spec.max_attempts,
            # An empty repository was taken once, and must stay readable.
            "only_if_changed": spec.only_if_changed and bool(spec.repository),
            "budget_usd_per_day": spec.budget_usd_per_day,
        }
    )


def _catch_up(spec: Spec, window_s: int) -> dict[str, Any]:
    return {"policy": spec.catch_up.policy, "windowS": window_s, "cap": spec.catch_up.cap}


def schedule_view(record: Schedule, now_ms: int) -> ScheduleView:
    spec = decode_spec(record.spec)
    asked = body_of(spec, record.name).model_dump(exclude={"enabled", "reason", "priority"})
    try:
        plan = plan_of(spec) if spec.kind != "event" else None
        today = local_day(spec, now_ms)
    except InvalidScheduleError:  # its record says so, in `error`
        plan, today = None, ""
    return ScheduleView.model_validate(
        {
            **asked,
            "catch_up": _catch_up(spec, window_s(spec)),
            "id": record.id,
            "agent_id": record.agent_id,
            "organization_id": record.organization_id,
            "revision": record.revision,
            "status": _status(record, spec, now_ms),
            "priority": spec.priority.value.upper(),
            "next_run_at": _text(record.wake_ms) if record.status == "active" else None,
            "next": fires(plan, max(record.accounted_ms, now_ms)) if plan is not None else (),
            "accounted_until": text_of(record.accounted_ms),
            "waiting": tuple(text_of(one.due_ms) for one in record.waiting),
            "running": record.active,
            "runs": record.runs,
            "failures": record.failures,
            "error": record.error,
            "last_run_at": _text(record.last_due_ms),
            "last_job_id": record.last_job_id,
            "last_outcome": record.last_outcome,
            "spent_usd_today": record.spent_usd if record.spent_day == today else 0.0,
            "tzdata": record.tzdata,
            "created_at": text_of(record.created_ms),
            "updated_at": text_of(record.changed_ms),
            "changed_by": record.changed_by,
            "reason": record.reason,
        }
    )


def _status(record: Schedule, spec: Spec, now_ms: int) -> ShownStatus:
    running = any(job not in record.held for job in record.active)
    if record.status == "paused":
        return "draining" if running else "paused"
    if record.status == "error":
        return "error"
    if running:
        return "executing"
    if spec.kind == "event":
        over = spec.end_ms is not None and spec.end_ms < now_ms
    else:
        over = record.next_ms is None
    return "ended" if over and not record.waiting else "active"


def occurrence_view(one: Occurrence) -> OccurrenceView:
    return OccurrenceView(
        id=one.id,
        schedule_id=one.schedule_id,
        agent_id=one.agent_id,
        name=one.name,
        revision=one.revision,
        outcome=one.outcome,
        reason=one.reason,
        due=text_of(one.due_ms),
        until=_text(one.to_ms),
        count=one.count,
        decided_at=text_of(one.at_ms),
        cause=one.cause,
        job_id=one.job_id,
        late=one.late,
        late_ms=one.late_ms,
        by=one.by,
        event_id=one.event_id,
    )


def revision_view(one: Revision) -> RevisionView:
    spec = decode_spec(one.spec)
    body = body_of(spec, one.name).to_wire()
    return RevisionView(
        schedule_id=one.schedule_id,
        agent_id=one.agent_id,
        name=one.name,
        revision=one.revision,
        after=text_of(one.from_ms),
        until=_text(one.to_ms),
        anchor=text_of(spec.anchor_ms) if spec.kind == "interval" else None,
        schedule=body,
        tzdata=one.tzdata,
        by=one.by,
        reason=one.why,
    )


def _text(at_ms: int | None) -> str | None:
    return None if at_ms is None else text_of(at_ms)
