"""A schedule as the scheduler has written it, without asking a scheduler for it."""

from __future__ import annotations

import msgspec

from runtime.schedule.record import SCHEDULES, Schedule, Spec, encode, schedule_key
from runtime.schedule.spec import plan_of
from runtime.schedule.zones import TZDATA_VERSION
from runtime.store.contract import Put


def planned(number: int, spec: Spec, since_ms: int) -> Put:
    """The document of acme's schedule for `worker:number`, first due after `since_ms`."""
    next_ms = plan_of(spec).next_after(since_ms)
    agent = f"worker:{number}"
    record = Schedule(
        f"schedule_{number:026d}", "acme", agent, "default", 1, msgspec.Raw(encode(spec)),
        since_ms, next_ms=next_ms, wake_ms=next_ms, tzdata=TZDATA_VERSION,
    )  # fmt: skip
    key = schedule_key("acme", agent, "default")
    return Put(SCHEDULES, key, "acme", encode(record), (f"agent={agent}",))
