"""What is kept of a schedule: its document, its revisions, and the ledger of its due times.

    document  (`schedule`, organization/agent/name)              Schedule    term agent=
    document  (`schedule_revision`, schedule id/revision)        Revision    term schedule=
    document  (`occurrence`, due time.schedule id.revision)      Occurrence  term of=agent/name

The scheduler is their only writer.  A schedule's document moves with every due
time: `accounted_ms` (the watermark) never falls, and every due time up to it
has an outcome in the ledger or is listed in `waiting`.  The three are written in
one commit, so a due time is decided once or not at all.

A revision is what a due time means; every change of the spec begins a new one,
at the watermark, so the revisions of a schedule cover time without gap or
overlap.  A schedule that is made again after it was deleted has another id.

Records are JSON in camelCase, as the API answers them; times are milliseconds
UTC in fields that end in `Ms`.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any, Final, Literal

import msgspec

from runtime.ids import ulid_of
from runtime.job import Priority

SCHEDULES: Final = "schedule"
REVISIONS: Final = "schedule_revision"
OCCURRENCES: Final = "occurrence"
DEFAULT_NAME: Final = "default"
"""Name of an agent's schedule when none is given."""
WAITING_MAX: Final = 100
"""Due times that one schedule keeps waiting; the next ones are skipped."""
CAP_MAX: Final = 100
"""Runs that one catch-up may ask for."""

Kind = Literal["cron", "interval", "once", "event"]
Overlap = Literal["skip", "queue_one", "queue_all", "cancel_running", "allow"]
CatchUpPolicy = Literal["latest", "none", "all"]
Status = Literal["active", "paused", "error", "ended"]
Cause = Literal["time", "manual", "event"]


class Outcome(StrEnum):
    """What became of a due time; exactly one of these."""

    FIRED = "fired"
    """It has a job."""
    COALESCED = "coalesced"
    """A later one ran for it."""
    SKIPPED_OVERLAP = "skipped_overlap"
    """The run before had not ended."""
    SKIPPED_PAUSED = "skipped_paused"
    """The schedule or the scheduler was paused, or the schedule in ERROR."""
    SKIPPED_UNCHANGED = "skipped_unchanged"
    """Nothing had changed in the repository since the last run."""
    SKIPPED_BUDGET = "skipped_budget"
    """The schedule had spent what it may in a day."""
    MISSED = "missed"
    """Nobody was there at the time, and the policy does not ask to catch up."""
    SUPERSEDED = "superseded"
    """It was waiting to run when the schedule was changed or deleted."""


class _Record(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Base of what is stored; fields are only ever added, with a default."""


class CatchUp(_Record, frozen=True, forbid_unknown_fields=True):
    """What is done about due times that are late by more than the grace."""

    policy: CatchUpPolicy = "latest"
    window_s: int = 86_400
    """What is older is missed, whatever the policy."""
    cap: int = 10
    """With `all`: at most so many runs, the newest."""


class Spec(_Record, frozen=True, forbid_unknown_fields=True):
    """What a user asks for; any change of it is a new revision."""

    kind: Kind
    expression: str
    """Cron expression, interval, RFC 3339 time, or the event's name."""
    timezone: str = "UTC"
    dialect: str | None = None
    """`debian` allows what other dialects read in another way."""
    anchor_ms: int = 0
    """Where an interval without a start of its own counts from."""
    nightly: str | None = None
    """The window that the expression's time was chosen in."""
    priority: Priority = Priority.NORMAL
    start_ms: int | None = None
    """Due times before it do not exist."""
    end_ms: int | None = None
    """Due times after it do not exist."""
    jitter_s: int = 0
    """A due time starts up to so much later, always by the same."""
    overlap: Overlap = "skip"
    catch_up: CatchUp = CatchUp()
    payload: dict[str, Any] = {}
    """The job's."""
    repository: str | None = None
    branch: str | None = None
    """With an event: of this branch only."""
    limit_key: str | None = None
    max_attempts: int | None = None
    only_if_changed: bool = False
    """Skip when the repository is as it was at the last run."""
    budget_usd_per_day: float | None = None
    """Skip when its runs have cost so much today, in the schedule's zone."""


class Waiting(_Record, frozen=True, array_like=True):
    """A due time that is to run later."""

    due_ms: int
    late: bool
    """It is caught up, at the scheduler's own pace; else it waits for the run before."""
    event_id: str | None = None
    """The message that told of its event."""
    event: dict[str, Any] | None = None
    """What that told; its job's payload has it."""


class Streak(_Record, frozen=True, array_like=True):
    """The due times that ended the same way one after the other, as the ledger has them."""

    outcome: str
    reason: str
    from_ms: int
    to_ms: int
    count: int


class Schedule(_Record, frozen=True):
    """A schedule and how far it has come."""

    id: str
    organization_id: str
    agent_id: str
    name: str
    revision: int
    spec: msgspec.Raw
    """A Spec; read when it is needed."""
    accounted_ms: int
    """Every due time up to here is decided."""
    status: Status = "active"
    next_ms: int | None = None
    """The next due time; None: there is none."""
    wake_ms: int | None = None
    """When it starts: the next due time and its jitter."""
    active: tuple[str, ...] = ()
    """Its jobs that have not ended, oldest first."""
    waiting: tuple[Waiting, ...] = ()
    streak: Streak | None = None
    runs: int = 0
    failures: int = 0
    """Runs that failed one after the other."""
    error: str | None = None
    last_due_ms: int | None = None
    """Of the last that fired."""
    last_job_id: str | None = None
    last_outcome: str | None = None
    spent_day: str = ""
    spent_usd: float = 0.0
    """In `spent_day`."""
    seen_head: str | None = None
    """The repository's commit at the last run."""
    seen_event: str | None = None
    """The message that told of the last event it has seen."""
    held: tuple[str, ...] = ()
    """Jobs that were taken out of the queue when it was paused."""
    tzdata: str = ""
    created_ms: int = 0
    changed_ms: int = 0
    changed_by: str = ""
    reason: str | None = None
    """Why it was changed, paused or resumed, as its person said."""


class Revision(_Record, frozen=True):
    """What the due times of a stretch of time mean."""

    schedule_id: str
    agent_id: str
    name: str
    revision: int
    spec: msgspec.Raw
    from_ms: int
    """Its due times are those after it ..."""
    tzdata: str
    by: str
    why: str | None = None
    to_ms: int | None = None
    """... up to and including this; None: it is the present one."""


class Occurrence(_Record, frozen=True):
    """A due time with its outcome, or a range of them that ended the same way."""

    id: str
    schedule_id: str
    agent_id: str
    name: str
    revision: int
    outcome: str
    due_ms: int
    """Of a range the first."""
    at_ms: int
    """When it was decided."""
    cause: Cause = "time"
    to_ms: int | None = None
    """Of a range the last."""
    count: int = 1
    reason: str | None = None
    job_id: str | None = None
    late: bool = False
    """It was caught up."""
    late_ms: int = 0
    """How long after it should have started it was accepted."""
    by: str | None = None
    event_id: str | None = None


def schedule_key(organization: str, agent: str, name: str) -> str:
    return f"{organization}/{agent}/{name}"


def revision_key(schedule_id: str, revision: int) -> str:
    return f"{schedule_id}/{revision:08d}"


def occurrence_id(schedule_id: str, revision: int, due_ms: int, mark: str = "") -> str:
    """The identity of a due time, and its key in the ledger; ids sort by due time.

    Args:
        mark: tells what is not due by the clock (a message's id) from what is.
    """
    ulid = schedule_id.removeprefix("schedule_")
    return f"occ_{due_ms:013d}_{ulid}_{revision}" + (f"_{mark}" if mark else "")


def job_id(occurrence: str, due_ms: int) -> str:
    """The id of an occurrence's job: always the same, so that it can't have two."""
    digest = hashlib.blake2b(occurrence.encode(), digest_size=10).digest()
    return f"job_{ulid_of(due_ms, digest)}"


encode = msgspec.json.Encoder().encode
decode_schedule = msgspec.json.Decoder(Schedule).decode
decode_spec = msgspec.json.Decoder(Spec).decode
decode_revision = msgspec.json.Decoder(Revision).decode
decode_occurrence = msgspec.json.Decoder(Occurrence).decode
