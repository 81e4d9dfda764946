"""What each message about a job leads to: the transitions of the queue's side, by message type.

    pending -> running -> completed | cancelled | failed
       ^          |-> waiting -> pending        (job.ready, or its time has come)
       |          |-> paused  -> pending        (job.resume)
       '----------'                             (failed, with tries left, after a backoff)

A handler decides from the job's record as it was read and the message alone,
notes in the table where the job is from now on, and answers what is to be
written.  A message may be read late: what the record says has happened by
then, has.  Reading, committing and dispatching are `scheduler`'s business; what
a decision looks like in the store is `jobs.decisions`'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from runtime.backoff import Backoff
from runtime.clock import LATEST_MS, Clock, iso
from runtime.ids import address, split
from runtime.job import LOGS_MAX, AgentJob, JobStatus, LogLine
from runtime.jobs import decisions
from runtime.jobs.decisions import Decision, refuse
from runtime.jobs.holds import Holds
from runtime.jobs.rounds import PAUSE, RESUME
from runtime.jobs.table import JobTable
from runtime.message import Message
from runtime.store.contract import ABSENT, Document

ATTEMPTS_MAX = 4
"""First try and retries of a job that does not say, unless the operator does."""


class JobDesk:
    """Decides about jobs; one for each life of a scheduler."""

    def __init__(
        self,
        jobs: JobTable,
        clock: Clock,
        random: Callable[[], float],
        backoff: Backoff,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        self.service: decisions.ServiceTimes = {}
        """Mean service times by kind of agent."""
        self.measured = False
        """They have changed since they were last written."""
        self.holds = Holds(jobs)
        self._jobs = jobs
        self._clock = clock
        self._random = random
        self._backoff = backoff
        self._attempts_max = attempts_max
        self._handlers: dict[str, Callable[[AgentJob, int, Message], Decision]] = {
            "job.queued": self._queued,
            "job.ready": self._ready,
            "job.signal": self._signal,
            "job.cancel": self._cancel,
            "job.pause": self._pause,
            "job.resume": self._resume,
        }

    def start(self, job: AgentJob, revision: int) -> Decision:
        """Hand out a job that has its turn."""
        return decisions.start(job, revision, self._clock.now_ms(), self._attempts_max)

    def knows(self, message_type: str) -> bool:
        """Whether there is a message of this type that `decide` takes."""
        return message_type in self._handlers

    def decide(self, job: AgentJob, revision: int, message: Message, asked: str | None) -> Decision:
        """What a message leads to.

        Args:
            revision: of the job's record, as it was read.
            asked: as for `ended`: a cancel holds, and a resume takes back a pause.

        Raises:
            KeyError, TypeError: the message is not of its type's form.
        """
        kind = message.message_type
        if kind in (PAUSE, RESUME) and not job.status.final:
            if asked == "cancel":
                return refuse("cancelling", f"{job.id} was asked to cancel, and is about to end")
            if asked == "pause" and kind == RESUME and job.status is not JobStatus.PAUSED:
                return decisions.withdraw(job, message.message_id, self._clock.now_ms())
        return self._handlers[kind](job, revision, message)

    def requeue(self, job: AgentJob, revision: int, **changed: Any) -> Decision:
        """Back into the queue, at its old place."""
        return self._back(decisions.requeued(job, revision, **changed))

    def _back(self, decision: Decision) -> Decision:
        assert decision.job is not None
        self._jobs.queued(decision.job, self._clock.now_ms())
        return decision

    def _queued(self, job: AgentJob, revision: int, message: Message) -> Decision:
        if job.status is JobStatus.PENDING and not self._jobs.is_waiting(job.id):
            self._jobs.admit(job, self._clock.now_ms())
        return Decision()

    def ended(self, job: AgentJob, revision: int, message: Message, asked: str | None) -> Decision:
        """A run has let go.

        The message is `job.ended {jobId, outcome, tookMs?, final?, error?, reason?,
        resumeAtMs?, still?, looked?, asked?}`, of one that is over with `agentType`.

        Args:
            asked: `cancel` or `pause`, if its host was asked to and may not have heard.
        """
        self._jobs.ended(job.id)
        if (took := message.content.get("tookMs")) is not None:
            self._measure(job.agent_type, float(took))
        match message.content["outcome"]:
            case "failed":
                error = message.content.get("error") or job.error
                why = message.content.get("reason")
                job = replace(job, error=error, reason=str(why) if why else job.reason)
                return self._failed(job, revision, bool(message.content.get("final")), asked)
            case "waiting" | "paused" as outcome:
                if job.status.value != outcome:
                    return self._moved_on(job, revision)
                return self._let_go(job, revision, message, asked)
            case _:
                return self._completed(address(job.organization_id, job.agent), job.status)

    def finished(self, sender: str, content: dict[str, Any]) -> Decision | None:
        """`job.ended` of a job that is over, from the agent with the address `sender`.

        None: the message is not enough, it has to be decided on with the job's record.
        """
        if "agentType" not in content:
            return None
        if self._jobs.running_for(content["jobId"]) != split(sender)[0]:
            return None
        self._jobs.ended(content["jobId"])
        if (took := content.get("tookMs")) is not None:
            self._measure(str(content["agentType"]), float(took))
        return self._completed(sender, content["outcome"])

    def _completed(self, where: str, status: str) -> Decision:
        puts = self.holds.completed(where) if status == JobStatus.COMPLETED else []
        return Decision(puts=puts)

    def _measure(self, agent_type: str, took_ms: float) -> None:
        decisions.measure(self.service, agent_type, took_ms / 1000)
        self.measured = True

    def _moved_on(self, job: AgentJob, revision: int) -> Decision:
        """Something was done about the job before this end of a run was read."""
        decision = Decision()
        if job.status in (JobStatus.PENDING, JobStatus.PAUSED):
            job, decision = decisions.change(job, revision, attempts=job.attempts - 1)
        self._jobs.forget(job.id)
        self._jobs.admit(job, self._clock.now_ms())
        return decision

    def _let_go(
        self, job: AgentJob, revision: int, message: Message, asked: str | None
    ) -> Decision:
        """The job waits or is paused, which is no attempt; unless something else was asked."""
        now_ms = self._clock.now_ms()
        if asked == "cancel":
            return decisions.end(job, revision, JobStatus.CANCELLED, "cancelled", now_ms)
        paused, was_asked = job.status is JobStatus.PAUSED, bool(message.content.get("asked"))
        if paused and was_asked and asked is None:  # that was withdrawn as it paused
            return self._resumed(job, revision, attempts=job.attempts - 1)
        if paused or asked == "pause":
            return self._paused(job, revision, attempts=job.attempts - 1)
        resume_at_ms = message.content.get("resumeAtMs")
        if type(resume_at_ms) is not int or resume_at_ms > LATEST_MS:
            resume_at_ms = None
        self._jobs.wait_until(job.id, resume_at_ms)
        still = bool(message.content.get("still"))
        return decisions.wait(job, revision, resume_at_ms, now_ms, still=still)

    def _paused(self, job: AgentJob, revision: int, **changed: Any) -> Decision:
        self._jobs.paused(job.id)
        return decisions.paused(job, revision, self._clock.now_ms(), **changed)

    def _failed(self, job: AgentJob, revision: int, final: bool, asked: str | None) -> Decision:
        now_ms = self._clock.now_ms()
        if final or job.attempts >= (job.max_attempts or self._attempts_max):
            decision = decisions.end(job, revision, JobStatus.FAILED, job.reason or "error", now_ms)
            assert decision.job is not None
            self.holds.failed(decision, decision.job, now_ms)
            return decision
        if asked == "cancel":
            return decisions.end(job, revision, JobStatus.CANCELLED, "cancelled", now_ms)
        if asked == "pause":
            return self._paused(job, revision)
        wait_s = self._backoff.wait_s(job.attempts, self._random)
        not_before_ms = now_ms + round(wait_s * 1000)
        self._jobs.queued_at(job, not_before_ms)
        _, decision = decisions.change(
            job, revision, status=JobStatus.PENDING, not_before_ms=not_before_ms
        )
        return decision

    def _ready(self, job: AgentJob, revision: int, message: Message) -> Decision:
        if job.status is not JobStatus.WAITING:
            return Decision()
        return self.requeue(job, revision)

    def _signal(self, job: AgentJob, revision: int, message: Message) -> Decision:
        now_ms = self._clock.now_ms()
        cause = f"signal:{message.message_id}"
        send = decisions.to_agent(job, "job.signal", message.content, cause, now_ms)
        return Decision(sends=[send], reply={"ok": True})

    def _cancel(self, job: AgentJob, revision: int, message: Message) -> Decision:
        now_ms = self._clock.now_ms()
        if job.status.final:
            return refuse("already_ended", f"{job.id} is {job.status.value}")
        if job.status is JobStatus.RUNNING:
            return decisions.ask_host(job, "cancel", message.message_id, now_ms)
        self._jobs.forget(job.id)
        return decisions.end(job, revision, JobStatus.CANCELLED, "cancelled", now_ms)

    def _pause(self, job: AgentJob, revision: int, message: Message) -> Decision:
        if job.status is JobStatus.RUNNING:
            return decisions.ask_host(job, "pause", message.message_id, self._clock.now_ms())
        if job.status not in (JobStatus.PENDING, JobStatus.WAITING):
            return refuse("wrong_status", f"{job.id} is {job.status.value}")
        return self._paused(job, revision)

    def _resume(self, job: AgentJob, revision: int, message: Message) -> Decision:
        if job.status is not JobStatus.PAUSED:
            return refuse("wrong_status", f"{job.id} is {job.status.value}")
        return self._resumed(job, revision)

    def _resumed(self, job: AgentJob, revision: int, **changed: Any) -> Decision:
        return self._back(decisions.resumed(job, revision, self._clock.now_ms(), **changed))

    def retry(
        self, job: AgentJob, revision: int, message: Message, letter: Document | None
    ) -> Decision:
        """`job.retry {jobId, by, letter?, payload?, newId?}`: try a failed job again.

        With another payload it is another job, `newId`: what the first has recorded was
        for what it was asked.

        Args:
            letter: the job's dead letter, as it was read. If the message names the
                revision of one, it must be this one: the letter is redelivered once.
        """
        asked = message.content.get("letter")
        if asked is not None and (letter is None or letter.revision != asked):
            return refuse("not_found", f"{job.id} has no such dead letter any more")
        if job.status is not JobStatus.FAILED:
            return refuse("wrong_status", f"{job.id} is {job.status.value}")
        if "payload" in message.content:
            return self._anew(job, message, letter)
        now_ms, by = self._clock.now_ms(), str(message.content.get("by") or message.sender)
        line = LogLine(time=iso(now_ms), message=f"Tried again by {by}")
        fresh = {"attempts": 0, "error": None, "result": None, "completed_at": None}
        logs = (*job.logs, line)[-LOGS_MAX:]
        decision = self.requeue(job, revision, logs=logs, **fresh)
        decision.puts.append(decisions.unasked(job))
        assert decision.job is not None
        decisions.retried(decision, decision.job, letter, by, now_ms)
        return decision

    def _anew(self, job: AgentJob, message: Message, letter: Document | None) -> Decision:
        """A job like one that has failed, with another payload."""
        if job.issue_id is not None:
            return refuse("belongs_to_issue", f"{job.id} is its issue's; send it a message instead")
        content, now_ms = message.content, self._clock.now_ms()
        by = str(content.get("by") or message.sender)
        line = LogLine(time=iso(now_ms), message=f"{job.id} with another payload, by {by}")
        kept = {"config", "priority", "reply_to", "repository", "limit_key", "max_attempts"}
        fresh = AgentJob.new(
            id=content["newId"],
            organization_id=job.organization_id,
            agent_type=job.agent_type,
            agent_id=job.agent_id,
            now_ms=now_ms,
            payload=content["payload"],
            logs=(line,),
            **{name: getattr(job, name) for name in kept},
        )
        decision = decisions.write(fresh, ABSENT, {"ok": True, "jobId": fresh.id})
        decisions.retried(decision, job, letter, by, now_ms)
        self._jobs.queued(fresh)
        return decision

    def give_up(self, job: AgentJob, revision: int, reason: str, error: str) -> Decision:
        """A job fails as what is next for it can't be written; that says nothing of its agent."""
        self._jobs.ended(job.id)
        self._jobs.forget(job.id)
        job = replace(job, error=error)
        return decisions.end(job, revision, JobStatus.FAILED, reason, self._clock.now_ms())
