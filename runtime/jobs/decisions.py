"""What the scheduler decides about one job: pure functions, each the content of a commit.

A decision never touches the scheduler's memory; it says what is written about
the job, who is told, and what is answered.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from runtime.clock import iso
from runtime.ids import SCHEDULER, SCHEDULER_AGENT, SYSTEM, address
from runtime.job import AgentJob, JobStatus
from runtime.jobs.events import (
    finished_send,
    job_event,
    job_send,
    ms_of,
    record_put,
    renamed,
    run_id,
    told_send,
)
from runtime.message import Message
from runtime.repository import repository_name
from runtime.schedule.queue import Place, place
from runtime.store.contract import (
    DEAD_LETTERS,
    Ack,
    Commit,
    Document,
    FeedEvent,
    Fence,
    Put,
    Send,
)
from runtime.turn import to_json

CARRIED_BYTES_MAX = 64 << 10
"""Of a record that goes along with `job.run`; the host reads a longer one itself."""
STATS = "stats"
"""Collection: what the scheduler measures, or keeps so that the next one measures right."""
SERVICE_TIMES = "service_times"
DUES = "due_times"
MEAN_OVER = 50
"""A mean service time follows about this many of the latest runs."""


class Decision(msgspec.Struct):
    """The content of one commit."""

    puts: list[Put] = []
    sends: list[Send] = []
    feed: list[FeedEvent] = []
    reply: dict[str, Any] | None = None
    job: AgentJob | None = None
    """The record that it writes, if it does."""

    def commit(self, fence: Fence, acks: tuple[Ack, ...] = ()) -> Commit:
        """The commit of the scheduler that writes it and acknowledges what led to it."""
        return Commit(
            SYSTEM,
            SCHEDULER,
            fence,
            acks=acks,
            puts=tuple(self.puts),
            sends=tuple(self.sends),
            feed=tuple(self.feed),
        )


def refuse(code: str, detail: str) -> Decision:
    """Nothing happens, and the answer says why."""
    return Decision(reply={"ok": False, "code": code, "detail": detail})


def write(job: AgentJob, revision: int, reply: dict[str, Any] | None = None) -> Decision:
    """Write the record, if nobody has since it was read at `revision`."""
    return Decision(puts=[record_put(job, revision)], reply=reply, job=job)


def change(job: AgentJob, revision: int, **changed: Any) -> tuple[AgentJob, Decision]:
    """The changed record and the decision that writes it; the answer is its new status."""
    job = replace(job, **changed)
    return job, write(job, revision, {"ok": True, "status": job.status.value})


def start(job: AgentJob, revision: int, now_ms: int, attempts_max: int) -> Decision:
    """Hand the job to whichever host claims its agent: record and `job.run` in one commit.

    One whose wait is over only looks whether it can go on: it keeps its reason,
    and its host tells that it has started when it does.  The record goes along
    with the first run of all, of which there can be nothing else to read.

    Args:
        attempts_max: tries of a job that does not say; from now on its record says it.
    """
    looks, first = job.status is JobStatus.WAITING, job.started_at is None
    job, decision = change(
        job,
        revision,
        status=JobStatus.RUNNING,
        attempts=job.attempts + 1,
        max_attempts=attempts_max if job.max_attempts is None else job.max_attempts,
        reason=job.reason if looks else None,
        not_before_ms=0,
        started_at=job.started_at or iso(now_ms),
    )
    content: dict[str, Any] = {"jobId": job.id, **({"look": revision} if looks else {})}
    body = decision.puts[0].body
    if first and not looks and body is not None and len(body) <= CARRIED_BYTES_MAX:
        content |= {"job": msgspec.Raw(body), "revision": revision + 1}
    if job.cost_usd or job.tokens:
        content["spent"] = [job.cost_usd, job.tokens]  # so that the run's own can be told
    decision.sends.append(_run(job, content, run_id(job.id, revision), now_ms))
    if looks:
        return decision
    _tell(decision, job, "started", {}, revision, now_ms)
    publish(decision, "job:started", job, now_ms)
    decision.feed.append(renamed(decision.feed[-1], "agent:started"))
    return decision


def _run(job: AgentJob, content: dict[str, Any], message_id: str, now_ms: int) -> Send:
    """`job.run {jobId, look?, job?, revision?, spent?}`; the record is put in as it was encoded."""
    where = address(job.organization_id, job.agent)
    return job_send(
        SCHEDULER_AGENT, SCHEDULER, job.agent, where, message_id, "job.run", content, now_ms
    )


def end(job: AgentJob, revision: int, status: JobStatus, reason: str, now_ms: int) -> Decision:
    """A job comes to its end without running: the record, and word to whom it concerns."""
    job, decision = change(job, revision, status=status, reason=reason, completed_at=iso(now_ms))
    if job.reply_to:
        decision.sends.append(finished_send(job, SCHEDULER_AGENT, SCHEDULER, revision, now_ms))
    if status is not JobStatus.FAILED:
        publish(decision, f"job:{status.value}", job, now_ms)
        return decision
    decision.puts.append(_dead_letter(job, now_ms))
    publish(decision, "job:failed", job, now_ms, error=job.error or reason)
    decision.feed.append(renamed(decision.feed[-1], "agent:failed"))
    return decision


def wait(
    job: AgentJob, revision: int, resume_at_ms: int | None, now_ms: int, *, still: bool = False
) -> Decision:
    """The job waits without a slot; its own host has written so, and this adds until when.

    Args:
        still: it has looked, and waits for the same as before: nobody is told again.
    """
    attempts = job.attempts - 1  # waiting is no attempt
    job, decision = change(job, revision, attempts=attempts, not_before_ms=resume_at_ms or 0)
    if still:
        return decision
    _tell(decision, job, "waiting", {"reason": job.reason}, revision, now_ms)
    return decision


def _tell(
    decision: Decision,
    job: AgentJob,
    kind: str,
    content: dict[str, Any],
    revision: int,
    now_ms: int,
) -> None:
    if job.reply_to:
        decision.sends.append(
            told_send(job, kind, content, SCHEDULER_AGENT, SCHEDULER, revision, now_ms)
        )


def ask_host(job: AgentJob, what: str, cause: str, now_ms: int) -> Decision:
    """Have the host that runs the job cancel or pause it.

    What is asked is also kept as a document, so that a host that takes the job
    over after a crash knows it too.
    """
    send = to_agent(job, f"job.{what}", {"jobId": job.id}, f"{what}:{cause}", now_ms)
    asked = Put("asked", job.id, job.organization_id, what.encode())
    return Decision(puts=[asked], sends=[send], reply={"ok": True, "status": job.status.value})


def withdraw(job: AgentJob, cause: str, now_ms: int) -> Decision:
    """Take a request to pause back, and tell the host, which may not have paused yet."""
    send = to_agent(job, "job.resume", {"jobId": job.id}, f"resume:{cause}", now_ms)
    reply = {"ok": True, "status": job.status.value}
    return Decision(puts=[unasked(job)], sends=[send], reply=reply)


def unasked(job: AgentJob) -> Put:
    """Forget what was asked of the job's run, so that the next one is not met by it."""
    return Put("asked", job.id, job.organization_id, None)


def to_agent(job: AgentJob, message_type: str, content: Any, message_id: str, now_ms: int) -> Send:
    """A control message for the job's agent."""
    message = Message(
        message_id=message_id,
        sender=SCHEDULER_AGENT,
        recipient=job.agent,
        message_type=message_type,
        content=content,
        timestamp=iso(now_ms),
    )
    return Send(message_id, SCHEDULER, address(job.organization_id, job.agent), message.to_json())


def publish(decision: Decision, event: str, job: AgentJob, now_ms: int, **more: Any) -> None:
    """Add a public event about the job to the decision."""
    decision.feed.append(job_event(job, event, now_ms, **more))


def requeued(job: AgentJob, revision: int, **changed: Any) -> Decision:
    """The job goes back into the queue, at its old place."""
    pending = {"status": JobStatus.PENDING, "reason": None, "not_before_ms": 0, **changed}
    return change(job, revision, **pending)[1]


def paused(job: AgentJob, revision: int, now_ms: int, **changed: Any) -> Decision:
    """The job has no slot, and gets none."""
    then = {"status": JobStatus.PAUSED, "reason": "paused", **changed}
    now, decision = change(job, revision, **then)
    if job.status is not JobStatus.PAUSED:  # else its host has told
        publish(decision, "job:paused", now, now_ms)
        decision.feed.append(renamed(decision.feed[-1], "agent:paused"))
    return decision


def resumed(job: AgentJob, revision: int, now_ms: int, **changed: Any) -> Decision:
    """The job goes on; nothing is asked of it any more."""
    decision = requeued(job, revision, **changed)
    decision.puts.append(unasked(job))
    assert decision.job is not None
    publish(decision, "job:resumed", decision.job, now_ms)
    decision.feed.append(renamed(decision.feed[-1], "agent:resumed"))
    return decision


def retried(
    decision: Decision, job: AgentJob, letter: Document | None, by: str, now_ms: int
) -> None:
    """A person has the failed job tried again: its dead letter is settled, and who did it is said.

    The letter must be as it was read, so that one letter leads to one more run.
    """
    publish(decision, "job:retried", job, now_ms, by=by)
    if letter is not None:
        put = Put(DEAD_LETTERS, letter.key, job.organization_id, None, (), letter.revision)
        decision.puts.append(put)


ServiceTimes = dict[str, dict[str, float]]


def measure(service: ServiceTimes, agent_type: str, took_s: float) -> None:
    """Add the time that a run held its slot to the mean of its kind.

    How long others wait for a slot is estimated from it, so what a job waits without one,
    for a person or the next try, is no part of it.
    """
    seen = service.setdefault(agent_type, {"count": 0, "meanS": 0.0})
    seen["count"] += 1
    seen["meanS"] += (took_s - seen["meanS"]) / min(seen["count"], MEAN_OVER)


def measured(service: ServiceTimes) -> Decision:
    """Write the mean times down."""
    return Decision(puts=[Put(STATS, SERVICE_TIMES, SYSTEM, to_json(service))])


def dues_queued(until_ms: int) -> Decision:
    """Write down up to when due times have their jobs in the queue, for who takes over."""
    return Decision(puts=[Put(STATS, DUES, SYSTEM, to_json({"queuedMs": until_ms}))])


def place_of(job: AgentJob) -> Place:
    """The job's place in the queue; the same however often it is queued."""
    return place(
        job.id, job.organization_id, ms_of(job.queued_at), job.priority,
        repository=job.repository and repository_name(job.repository),
        agent=job.agent_id, key=job.limit_key,
    )  # fmt: skip


def _dead_letter(job: AgentJob, now_ms: int) -> Put:
    letter = {
        "id": job.id,
        "agent": job.agent,
        "sender": SCHEDULER_AGENT,
        "reason": job.reason,
        "error": job.error or job.reason or "",
        "attempts": job.attempts,
        "at": iso(now_ms),
    }
    terms = (f"agent={job.agent}",)
    return Put(DEAD_LETTERS, letter_key(job.id), job.organization_id, to_json(letter), terms)


def letter_key(job_id: str) -> str:
    """Where the dead letter of a job is."""
    return f"job/{job_id}"
