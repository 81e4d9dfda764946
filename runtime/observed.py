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
from runtime.job import AgentJob, JobStatus
from runtime.jobs.rounds import OUTCOMES, Heard, Unit
from runtime.logs import tell
from runtime.message import Message
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
    "agent.pause": logging.INFO,
    "agent.resume": logging.INFO,
    "scheduler.pause": logging.INFO,
    "scheduler.resume": logging.INFO,
    "scheduler.drain": logging.INFO,
    "scheduler.refused": logging.INFO,
}
"""Action -> level. An operation's action is its message's type, unless it came to more."""
SILENT: Final = frozenset({"scheduler.status"})


class Observed:
    """Keeps nothing: what ends, or goes on, says itself what there is to count."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        for name in ("troupe_runs_started", "troupe_job_retries", "troupe_jobs_dead"):
            meter.count(name, 0)
        for outcome in OUTCOMES:
            meter.count("troupe_runs_ended", 0, label=outcome)

    def saw(self, units: Iterable[Unit]) -> None:
        """What was written together is durable."""
        started = 0
        tells = logger.isEnabledFor(logging.DEBUG)
        for unit in units:
            if unit.starts is not None:
                started += not unit.looks
                if tells:
                    self._tell("job.dispatched", unit, job=unit.starts)
            elif unit.heard is not None:
                started += self._heard(unit, unit.heard)
            elif _is_given_up(unit.decision.job):
                self._gave_up(unit)
        if started:
            self._meter.count("troupe_runs_started", started)

    def _heard(self, unit: Unit, heard: Heard) -> bool:
        """A message was decided on; whether a run has ended that was not counted as started."""
        message, reply = heard.message, unit.decision.reply
        if message is None or (reply is not None and reply.get("ok") is False):
            kind = message.message_type if message is not None else None
            self._tell("scheduler.refused", unit, asked=kind, code=(reply or {}).get("code"))
        elif heard.ends:
            return self._ended(unit, message.content)
        elif message.message_type not in SILENT:
            self._did(unit, heard, message)
        return False

    def _ended(self, unit: Unit, said: dict[str, Any]) -> bool:
        job, outcome = unit.decision.job, str(said["outcome"])
        if not said.get("still"):  # else it only looked
            self._meter.count("troupe_runs_ended", label=outcome)
            if (took_ms := said.get("tookMs")) is not None:
                took_s = max(0.0, float(took_ms)) / 1000
                self._meter.observe("troupe_run_seconds", took_s, label=outcome)
        if _is_given_up(job):
            self._gave_up(unit, outcome)
        elif outcome == "failed" and job is not None and not job.status.final:
            self._meter.count("troupe_job_retries")
            self._tell("job.retried", unit, job=job.id, outcome=outcome)
        elif logger.isEnabledFor(OPERATIONS["job.ended"]):
            self._tell("job.ended", unit, job=said["jobId"], outcome=outcome)
        return bool(said.get("looked"))

    def _gave_up(self, unit: Unit, outcome: str | None = None) -> None:
        assert unit.decision.job is not None
        self._meter.count("troupe_jobs_dead")
        self._tell("job.dead", unit, job=unit.decision.job.id, outcome=outcome)

    def _did(self, unit: Unit, heard: Heard, message: Message) -> None:
        kind = message.message_type
        if logger.isEnabledFor(OPERATIONS.get(kind, logging.INFO)):
            asked = message.content or {}
            why = {name: asked.get(name) for name in ("by", "reason")}
            self._tell(kind, unit, job=heard.job_id, agent=asked.get("agentId"), **why)

    def _tell(self, action: str, unit: Unit, **more: Any) -> None:
        job = unit.decision.job
        if job is not None:
            more |= {"agent": job.agent, "organization": job.organization_id}
            more |= {"status": job.status.value, "attempts": job.attempts}
        elif unit.heard is not None:
            more["organization"] = split(unit.heard.stored.sender)[0]
        tell(logger, OPERATIONS.get(action, logging.INFO), action, more)


def _is_given_up(job: AgentJob | None) -> bool:
    """Whether a decision writes that a job has failed for good."""
    return job is not None and job.status is JobStatus.FAILED
