"""What the end of its runs leads to for a schedule: what waited starts, or ERROR.  Pure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from runtime.job import AgentJob, JobStatus
from runtime.plans.table import Entry
from runtime.plans.writer import Change, Facts, settled
from runtime.schedule.policy import Moment, drain, drop
from runtime.schedule.record import Outcome, Schedule
from runtime.schedule.spec import is_over_budget, local_day

logger = logging.getLogger(__name__)

Ended = Mapping[str, AgentJob | None]
"""Jobs that have ended, by id; None: its record was removed."""


def after(entry: Entry, ended: Ended, moment: Moment, facts: Facts) -> Change:
    """The change of a schedule once some of its jobs have ended.

    Args:
        moment: as it is with these jobs out of the way, but for what they have cost.
    """
    record, failed = _counted(entry, ended, facts.now_ms)
    if failed is not None:
        return _failed(entry, record, failed, facts)
    over_budget = is_over_budget(entry.spec, record, moment.now_ms)
    moment = replace(moment, over_budget=over_budget)
    fates = drain(entry.spec, record.waiting, moment, paced=False)
    return settled(entry, record, fates, facts).finish()


def _counted(entry: Entry, ended: Ended, now_ms: int) -> tuple[Schedule, AgentJob | None]:
    """The record without these jobs, with what they have cost; the one that failed last."""
    before, day = entry.record, local_day(entry.spec, now_ms)
    spent_usd = before.spent_usd if before.spent_day == day else 0.0
    spent_usd += sum(job.cost_usd for job in ended.values() if job is not None)
    failures, failed = before.failures, None
    for job in ended.values():
        if job is not None and job.status is JobStatus.FAILED:
            failures, failed = failures + 1, job
        elif job is not None and job.status is JobStatus.COMPLETED:
            failures, failed = 0, None
    record = msgspec.structs.replace(
        before,
        active=tuple(job for job in before.active if job not in ended),
        held=tuple(job for job in before.held if job not in ended),
        spent_day=day,
        spent_usd=round(spent_usd, 6),
        failures=failures,
    )
    return record, failed


def _failed(entry: Entry, record: Schedule, job: AgentJob, facts: Facts) -> Change:
    """Its job has failed for good: the schedule is in ERROR until somebody resumes it."""
    error = job.error or job.reason or "error"
    fates = drop(record.waiting, Outcome.SKIPPED_PAUSED, "error")
    change = settled(entry, record, fates, facts)
    assert change.record is not None
    status = "error" if record.status == "active" else record.status
    change.record = msgspec.structs.replace(change.record, status=status, error=error)
    change.publish("schedule:error", {"jobId": job.id, "error": error}, facts.now_ms)
    logger.error(
        "%s/%s is off the schedule: %s failed",
        record.agent_id,
        record.name,
        job.id,
        extra={"action": "schedule.error", "agent": record.agent_id, "job": job.id},
    )
    return change.finish()
