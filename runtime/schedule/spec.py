"""What a user asks of a schedule, checked and made a Spec.

`ScheduleBody` is the same everywhere: the body of `POST /api/agents/{id}/schedule`,
what Python's `create` takes, and the content of the message `schedule.set`.
Exactly one of `cron`, `interval`, `at`, `event` and `nightly` says when.

A `nightly` window is a cron time inside it, chosen by the schedule's name: many
of them spread over the night by themselves.  It is caught up only while the
window lasts.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from functools import lru_cache
from typing import Annotated, Any, Final, Self, cast
from urllib.parse import urlsplit

import msgspec
from pydantic import BeforeValidator, Field, StrictBool, model_validator

from runtime.errors import InvalidScheduleError
from runtime.job import Priority
from runtime.schedule import nightly
from runtime.schedule.cronfields import Dialect
from runtime.schedule.instants import MINUTE_MS, instant
from runtime.schedule.jitter import JITTER_MS_MAX
from runtime.schedule.plan import Plan, once, parse
from runtime.schedule.record import (
    CAP_MAX,
    DEFAULT_NAME,
    CatchUp,
    CatchUpPolicy,
    Kind,
    Overlap,
    Schedule,
    Spec,
)
from runtime.schedule.zones import DAY, Zone, zone
from runtime.wire import WireModel

TRIGGERS: Final = ("cron", "interval", "at", "event", "nightly")
NAME: Final = r"^[a-z][a-z0-9_-]{0,63}$"
PAYLOAD_BYTES_MAX: Final = 16 << 10
WINDOW_S_MAX: Final = 366 * 86_400
ATTEMPTS_MAX: Final = 20
BARE: Final = "a repository is named without a password or a token"
_KINDS: Final[dict[str, Kind]] = {
    "cron": "cron", "nightly": "cron", "interval": "interval", "at": "once", "event": "event",
}  # fmt: skip
_EPOCH: Final = date(1970, 1, 1).toordinal()
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def _number(value: Any) -> Any:
    """Refuse what pydantic would take for a number; `5.0` is the whole number that it is."""
    if isinstance(value, bool | str):
        raise ValueError("a number is due")
    return value


_Whole = Annotated[int, BeforeValidator(_number)]
_Amount = Annotated[float, BeforeValidator(_number)]


class CatchUpBody(WireModel):
    """What is done about due times that nobody was there for."""

    policy: CatchUpPolicy = "latest"
    window_s: _Whole = Field(86_400, ge=0, le=WINDOW_S_MAX)
    """What is older is missed."""
    cap: _Whole = Field(10, ge=1, le=CAP_MAX)
    """With `all`: at most so many runs."""


class ScheduleBody(WireModel):
    """A schedule as it is asked for."""

    name: str = Field(DEFAULT_NAME, pattern=NAME)
    cron: str | None = Field(None, max_length=256, examples=["*/30 9-17 * * 1-5"])
    interval: str | None = Field(None, max_length=256, examples=["every 30 minutes", "PT30M"])
    at: str | None = Field(None, max_length=64, examples=["2026-12-24T18:00:00Z"])
    event: str | None = Field(None, pattern=r"^[a-z][a-z0-9_.-]{0,63}$", examples=["push"])
    nightly: str | None = Field(None, max_length=11, examples=["01:00-05:00"])
    timezone: str = Field("UTC", max_length=64, examples=["Europe/Berlin"])
    dialect: Dialect | None = None
    priority: Priority = Priority.NORMAL
    start: str | None = Field(None, max_length=64)
    """Nothing is due before."""
    end: str | None = Field(None, max_length=64)
    """Nothing is due after."""
    jitter_s: _Whole = Field(0, ge=0, le=JITTER_MS_MAX // 1000)
    overlap: Overlap = "skip"
    catch_up: CatchUpBody = CatchUpBody.model_validate({})
    payload: dict[str, Any] = Field(default_factory=dict)
    repository: str | None = Field(None, max_length=500)
    branch: str | None = Field(None, max_length=250)
    limit_key: str | None = Field(None, max_length=200)
    max_attempts: _Whole | None = Field(None, ge=1, le=ATTEMPTS_MAX)
    only_if_changed: StrictBool = False
    budget_usd_per_day: _Amount | None = Field(None, gt=0, le=1_000_000)
    enabled: StrictBool | None = None
    """False: it is made paused; of one that is there only pause and resume change it."""
    reason: str | None = Field(None, max_length=500)
    """Why, for the audit trail."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = [name for name in TRIGGERS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(TRIGGERS)} says when")
        if self.only_if_changed and not self.repository:
            raise ValueError("onlyIfChanged needs a repository")
        if self.branch is not None and self.event is None:
            raise ValueError("a branch belongs to an event")
        if len(msgspec.json.encode(self.payload)) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a payload has at most {PAYLOAD_BYTES_MAX} bytes")
        return self

    @property
    def trigger(self) -> str:
        """Which of TRIGGERS it is."""
        return next(name for name in TRIGGERS if getattr(self, name) is not None)


class FieldError(Exception):
    """A field of a body can't be meant. Args: its name on the wire, the error."""

    def __init__(self, field: str, error: InvalidScheduleError) -> None:
        super().__init__(field, error)
        self.field = field
        self.error = error


def spec_of(body: ScheduleBody, agent: str, now_ms: int) -> Spec:
    """The Spec that a body means.

    Args:
        now_ms: an interval counts from here, unless it has a start.

    Raises:
        FieldError: a time, an expression or a zone can't be meant, or means two things.
    """
    trigger = body.trigger
    text = str(getattr(body, trigger))
    place = _field("timezone", lambda: zone(body.timezone))
    start_ms = _field("start", lambda: _bound(body.start, place))
    end_ms = _field("end", lambda: _bound(body.end, place))
    if has_secret(body.repository or ""):
        raise FieldError("repository", InvalidScheduleError("has_secret", 0, BARE))
    if trigger == "nightly":
        text = _field("nightly", lambda: nightly.chosen(text, agent, body.name))
    spec = Spec(
        kind=_KINDS[trigger],
        expression=text,
        timezone=body.timezone,
        dialect=body.dialect,
        anchor_ms=now_ms if trigger == "interval" else 0,
        nightly=body.nightly,
        priority=body.priority,
        start_ms=start_ms,
        end_ms=end_ms,
        jitter_s=body.jitter_s,
        overlap=body.overlap,
        catch_up=CatchUp(body.catch_up.policy, body.catch_up.window_s, body.catch_up.cap),
        payload=body.payload,
        repository=body.repository,
        branch=body.branch,
        limit_key=body.limit_key,
        max_attempts=body.max_attempts,
        only_if_changed=body.only_if_changed,
        budget_usd_per_day=body.budget_usd_per_day,
    )
    if spec.kind == "event":
        return spec
    plan = _field(trigger, lambda: plan_of(spec))
    if plan.kind != spec.kind:
        raise FieldError(trigger, _another(trigger, plan.kind, text.index(plan.text)))
    return msgspec.structs.replace(spec, expression=plan.text)


def has_secret(repository: str) -> bool:
    """Whether a URL has a password or a token: it would be logged, and shown to whoever looks."""
    try:
        parts = urlsplit(repository)
    except ValueError:
        return False  # it is no URL
    return bool(parts.password or (parts.scheme in ("http", "https") and parts.username))


def fault_in(text: str) -> tuple[int, str] | None:
    """Where and why a name can't be read: there is nothing to see, or a control character."""
    if not text.strip():
        return 0, "it is empty: leave it out"
    if control := _CONTROL.search(text):
        return control.start(), f"{control.group()!r} is a control character"
    return None


def in_order(spec: Spec) -> None:
    """Refuse bounds between which nothing can be due, and names that nobody can read.

    Apart from `spec_of`, because what was accepted once must stay readable.

    Raises:
        FieldError: the end is before the start; a text is empty or has control characters.
    """
    texts = {"repository": spec.repository, "branch": spec.branch, "limitKey": spec.limit_key}
    for field, text in texts.items():
        if text is not None and (fault := fault_in(text)):
            raise FieldError(field, InvalidScheduleError("bad_text", *fault))
    if spec.start_ms is not None and spec.end_ms is not None and spec.end_ms < spec.start_ms:
        detail = "it ends before it starts, so nothing would ever be due"
        raise FieldError("end", InvalidScheduleError("bad_bounds", 0, detail))


def _another(trigger: str, kind: str, position: int) -> InvalidScheduleError:
    detail = f"this is no {trigger}; give it as `{'at' if kind == 'once' else kind}`"
    return InvalidScheduleError("wrong_kind", position, detail)


def _bound(text: str | None, place: Zone) -> int | None:
    return None if text is None else instant(text, place)


def _field(name: str, read: Any) -> Any:
    try:
        return read()
    except InvalidScheduleError as error:
        raise FieldError(name, error) from None


def plan_of(spec: Spec) -> Plan:
    """What the due times of a spec are.

    Raises:
        InvalidScheduleError: it can't be meant, or means two things.
    """
    if spec.kind == "interval":
        dialect = cast(Dialect | None, spec.dialect)
        return parse(
            spec.expression, spec.timezone, anchor_ms=spec.anchor_ms, start_ms=spec.start_ms,
            end_ms=spec.end_ms, dialect=dialect,
        )  # fmt: skip
    if spec.kind == "once":
        plan = once(spec.expression, spec.timezone)
    else:
        plan = _parsed(spec.expression, spec.timezone, spec.dialect)
    if spec.start_ms is None and spec.end_ms is None:
        return plan
    return replace(plan, start_ms=spec.start_ms, end_ms=spec.end_ms)


@lru_cache(maxsize=4_096)
def _parsed(text: str, timezone: str, dialect: str | None) -> Plan:
    """Many schedules have the same few expressions."""
    return parse(text, timezone, dialect=cast(Dialect | None, dialect))


def same(one: Spec, other: Spec) -> bool:
    """Whether two specs mean the same due times and runs, wherever an interval counts from."""
    return msgspec.structs.replace(one, anchor_ms=0) == msgspec.structs.replace(other, anchor_ms=0)


def same_times(one: Spec, other: Spec) -> bool:
    """Whether two specs have the same expression, so that an interval need not begin anew."""
    return (one.kind, one.expression, one.timezone) == (
        other.kind,
        other.expression,
        other.timezone,
    )


def is_over_budget(spec: Spec, record: Schedule, now_ms: int) -> bool:
    """Whether a schedule's runs have cost what they may cost today."""
    most_usd = spec.budget_usd_per_day
    if most_usd is None or record.spent_day != local_day(spec, now_ms):
        return False
    return record.spent_usd >= most_usd


def local_day(spec: Spec, now_ms: int) -> str:
    """The day it is in the schedule's zone."""
    day = zone(spec.timezone).local(now_ms // MINUTE_MS) // DAY
    return date.fromordinal(_EPOCH + day).isoformat()
