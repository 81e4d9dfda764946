"""What the scheduler has done, as log lines and figures; told once it is durable.

Every operation has one action in `OPERATIONS`; what there happens for each job
is DEBUG, so that a full queue costs nothing, what a person asks for INFO, a
retry WARNING, a job that is given up ERROR.  Nothing of a job's content is told.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from runtime.ids import split
from runtime.job import JobStatus
from runtime.jobs.rounds import Unit
from runtime.logs import tell
from runtime.metrics import Meter

logger = logging.getLogger(__name__)

OPERATIONS: Final = {
    "job.dispatched": logging.DEBUG,
    "job.queued": logging.DEBUG,
    "job.ready": logging.DEBUG,
    "job.signal": logging.DEBUG,
    "job.ended": logging.DEBUG,
    "job.retried": logging.WARNING,
    "job.dead": logging.ERROR,
    "job.cancel": logging.INFO,
    "job.pause": logging.INFO,
    "job.resume": logging.INFO,
    "job.retry": logging.INFO,
    "scheduler.pause": logging.INFO,
    "scheduler.resume": logging.INFO,
    "scheduler.drain": logging.INFO,
    "scheduler.refused": logging.INFO,
}
"""Action -> level. An operation's action is its message's type, unless it came to more."""
SILENT: Final = frozenset({"scheduler.status"})


class Observed:
    """Keeps the begin of each run under way; of those it has seen begin."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._began: dict[str, int] = {}

    def saw(self, units: Iterable[Unit], now_ms: int) -> None:
        """What was written together is durable."""
        started = 0
        tells = logger.isEnabledFor(logging.DEBUG)
        for unit in units:
            if unit.starts is not None:
                started += 1
                self._began[unit.starts] = now_ms
                if tells:
                    self._tell("job.dispatched", unit, job=unit.starts)
            elif unit.heard is not None and unit.heard.message is not None:
                if unit.heard.ends:
                    self._ended(unit, now_ms)
                else:
                    self._did(unit)
        if started:
            self._meter.count("troupe_runs_started", started)

    def _ended(self, unit: Unit, now_ms: int) -> None:
        assert unit.heard is not None and unit.heard.message is not None
        content = unit.heard.message.content
        job_id, outcome = str(content.get("jobId")), str(content.get("outcome"))
        began_ms = self._began.pop(job_id, None)
        if content.get("still"):
            return  # it only looked
        self._meter.count("troupe_runs_ended", label=outcome)
        if began_ms is not None:
            took_s = max(0, now_ms - began_ms) / 1000
            self._meter.observe("troupe_run_seconds", took_s, label=outcome)
        action = "job.ended"
        if outcome == "failed" and (job := unit.decision.job) is not None:
            if job.status is JobStatus.FAILED:
                action = "job.dead"
                self._meter.count("troupe_jobs_dead")
            elif job.status is JobStatus.PENDING:
                action = "job.retried"
                self._meter.count("troupe_job_retries")
        if logger.isEnabledFor(OPERATIONS[action]):
            self._tell(action, unit, job=job_id, outcome=outcome)

    def _did(self, unit: Unit) -> None:
        assert unit.heard is not None and unit.heard.message is not None
        kind, content = unit.heard.message.message_type, unit.heard.message.content
        if kind in SILENT:
            return
        reply = unit.decision.reply
        if reply is not None and reply.get("ok") is False:
            self._tell("scheduler.refused", unit, asked=kind, code=reply.get("code"))
            return
        if logger.isEnabledFor(OPERATIONS.get(kind, logging.INFO)):
            asked = content if isinstance(content, dict) else {}
            why = {name: asked.get(name) for name in ("by", "reason")}
            self._tell(kind, unit, job=unit.heard.job_id, **why)

    def _tell(self, action: str, unit: Unit, **more: Any) -> None:
        job = unit.decision.job
        if job is not None:
            more |= {"agent": job.agent, "organization": job.organization_id}
            more |= {"status": job.status.value, "attempts": job.attempts}
        elif unit.heard is not None:
            more["organization"] = split(unit.heard.stored.sender)[0]
        tell(logger, OPERATIONS.get(action, logging.INFO), action, more)
