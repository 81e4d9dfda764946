"""The scheduler: one queue of jobs, dispatched by priority under limits.

It is the single writer of a job's record while the job is not running, and it
works like an agent: an inbox, an epoch, and one commit for what each message
led to.  To dispatch is to commit `status=running` together with the message
`job.run` for the job's agent; from there on the host that claims the agent is
the record's writer until `job.ended` comes back.  So nothing is lost between
the two, and a second scheduler can run but not write.

What it holds in memory is rebuilt from the job records at every start.

    pending -> running -> completed | cancelled | failed
       ^          |-> waiting -> pending        (job.ready, or its time has come)
       |          |-> paused  -> pending        (job.resume)
       '----------'                             (failed, with tries left, after a backoff)
"""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from runtime.agent import job_terms
from runtime.backoff import Backoff
from runtime.clock import Clock, iso
from runtime.errors import InvalidMessageError, StoreUnavailableError
from runtime.group import GroupCommitter
from runtime.ids import SCHEDULER, SYSTEM, Ids, address, split
from runtime.job import AgentJob, JobStatus
from runtime.jobrun import finished_send, job_rooms
from runtime.message import Message
from runtime.schedule.queue import JobQueue, Limits, place
from runtime.store.contract import (
    ANY,
    BATCH_MAX,
    Ack,
    Commit,
    Document,
    FeedEvent,
    Fence,
    Put,
    Refused,
    Send,
    Store,
    StoredMessage,
)
from runtime.turn import feed_event, to_json

logger = logging.getLogger(__name__)
T = TypeVar("T")

POLL_WAIT_S = 10.0
RETRY_S = 0.2
LEASE_S = 10.0
DECIDE_MAX = 3
"""Times one message is decided on when a record changes under the decision."""
SENDER = "scheduler:main"


@dataclass
class Decision:
    """What one message led to: the content of one commit."""

    puts: list[Put] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    feed: list[FeedEvent] = field(default_factory=list)
    reply: dict[str, Any] | None = None


def refuse(code: str, detail: str) -> Decision:
    return Decision(reply={"ok": False, "code": code, "detail": detail})


class FencedError(Exception):
    """Another scheduler has taken over."""


class Scheduler:
    """Create, then `await run()`; it returns only when cancelled or fenced."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        random: Callable[[], float],
        limits: Limits | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.owner = f"scheduler/{ids.ulid()}"
        self._store = store
        self._clock = clock
        self._ids = ids
        self._random = random
        self._backoff = backoff or Backoff()
        self._queue = JobQueue(limits or Limits())
        self._due: list[tuple[int, str]] = []
        """(time, job id) of jobs that wait for their time: retries and timed waits."""
        self._waiting: dict[str, int | None] = {}
        """Jobs without a slot -> when they are due, None: only a message makes them ready."""
        self._paused: set[str] = set()
        self._control = {"paused": False, "draining": False, "by": "", "at": ""}
        self._service: dict[str, dict[str, float]] = {}
        self._fence = Fence("", 0)
        self._group = GroupCommitter(store)
        self._cursor = 0
        self._handlers: dict[str, Callable[[StoredMessage, Message], Awaitable[Decision]]] = {
            "job.queued": self._job_queued,
            "job.ended": self._job_ended,
            "job.ready": self._job_ready,
            "job.signal": self._job_signal,
            "job.cancel": self._job_cancel,
            "job.pause": self._job_pause,
            "job.resume": self._job_resume,
            "job.retry": self._job_retry,
            "scheduler.status": self._scheduler_status,
            "scheduler.pause": self._scheduler_control,
            "scheduler.resume": self._scheduler_control,
            "scheduler.drain": self._scheduler_control,
        }

    # Life

    async def run(self) -> None:
        """Take the schedule over, rebuild, and work until cancelled.

        Raises:
            FencedError: another scheduler has the epoch; nothing more was written.
        """
        renewing = asyncio.create_task(self._renew())
        try:
            pending = await self._take_over()
            await self._rebuild()
            await self._handle_all(pending)
            while True:
                await self._dispatch()
                poll = await self._patiently(
                    lambda: self._store.poll(self.owner, self._cursor, BATCH_MAX, self._wait_s())
                )
                self._cursor = poll.cursor
                await self._handle_all(poll.messages)
                await self._release_due()
        finally:
            renewing.cancel()
            await self._group.close()

    def status(self) -> dict[str, Any]:
        """Counts and state, as `GET /api/scheduler/status` answers them."""
        running, queued = self._queue.running, len(self._queue)
        state = "PAUSED" if self._control["paused"] else "RUNNING" if running or queued else "IDLE"
        return {
            "state": state,
            "draining": bool(self._control["draining"]),
            "running": running,
            "queued": queued,
            "waiting": len(self._waiting),
            "paused": len(self._paused),
            "maxConcurrent": self._queue.limits.total,
            "changedBy": self._control["by"],
            "changedAt": self._control["at"],
            "owner": self.owner,
            "epoch": self._fence.epoch,
        }

    async def _take_over(self) -> tuple[StoredMessage, ...]:
        incarnation = await self._patiently(
            lambda: self._store.register(self.owner, "scheduler", LEASE_S)
        )
        while True:
            claimed = await self._patiently(lambda: self._store.claim(self.owner, 1, [SCHEDULER]))
            if claimed:
                self._fence = Fence(incarnation, claimed[0].epoch)
                logger.info(
                    "the scheduler is up, epoch %d",
                    claimed[0].epoch,
                    extra={"action": "scheduler.started", "epoch": claimed[0].epoch},
                )
                return claimed[0].inbox
            await asyncio.sleep(RETRY_S)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self._patiently(lambda: self._store.renew(self.owner, LEASE_S))

    async def _rebuild(self) -> None:
        """Read what the records say; they are the only truth."""
        control = await self._patiently(lambda: self._store.get("scheduler", "control"))
        if control is not None:
            self._control = json.loads(control.body)
        service = await self._patiently(lambda: self._store.get("stats", "service_times"))
        if service is not None:
            self._service = json.loads(service.body)
        for status in (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.WAITING, JobStatus.PAUSED):
            for document in await self._all_jobs(status):
                self._admit(AgentJob.model_validate_json(document.body))

    async def _all_jobs(self, status: JobStatus) -> list[Document]:
        found: list[Document] = []
        after: str | None = None
        terms = [f"status={status.value}"]
        while True:
            page = await self._patiently(
                lambda after=after: self._store.list_documents(  # type: ignore[misc]
                    "job", None, terms, after, BATCH_MAX, descending=False
                )
            )
            found.extend(page)
            if len(page) < BATCH_MAX:
                return found
            after = page[-1].key

    def _admit(self, job: AgentJob) -> None:
        """Put a job where its record says it is."""
        if job.status is JobStatus.RUNNING:
            self._queue.start(job.id, job.organization_id)
        elif job.status is JobStatus.PAUSED:
            self._paused.add(job.id)
        elif job.status is JobStatus.WAITING or job.not_before_ms > self._clock.now_ms():
            self._wait_until(job.id, job.not_before_ms or None)
        else:
            self._queue.add(_place(job))

    # Messages

    async def _handle_all(self, messages: tuple[StoredMessage, ...]) -> None:
        for stored in messages:
            await self._handle(stored)

    async def _handle(self, stored: StoredMessage) -> None:
        for _ in range(DECIDE_MAX):
            try:
                message = Message.from_json(stored.body)
                decision = await self._handlers[message.message_type](stored, message)
            except (InvalidMessageError, KeyError, TypeError) as error:
                decision = refuse("invalid_message", f"{type(error).__name__}: {error}")
            reply = to_json(decision.reply) if decision.reply is not None else None
            refused = await self._commit(decision, (Ack(stored.message_id, reply),))
            if refused != "revision_conflict":
                return

    async def _commit(self, decision: Decision, acks: tuple[Ack, ...] = ()) -> str | None:
        """Write one decision; the reason if it was refused (or had landed already)."""
        answer = await self._group.commit(
            Commit(
                SYSTEM,
                SCHEDULER,
                self._fence,
                acks=acks,
                puts=tuple(decision.puts),
                sends=tuple(decision.sends),
                feed=tuple(decision.feed),
            )
        )
        if isinstance(answer, Refused) and answer.reason in ("stale_epoch", "stale_incarnation"):
            raise FencedError(answer.reason)
        if isinstance(answer, Refused):
            logger.warning(
                "a decision of the scheduler was refused: %s %s",
                answer.reason,
                answer.detail,
                extra={"action": "commit.refused", "reason": answer.reason},
            )
            return answer.reason
        return None

    async def _job(self, stored: StoredMessage, message: Message) -> tuple[AgentJob, int] | None:
        """The job a message is about, and its revision, if the sender's organization owns it."""
        job_id = message.content["jobId"]
        document = await self._patiently(lambda: self._store.get("job", job_id))
        organization, _ = split(stored.sender)
        if document is None or organization not in (SYSTEM, document.organization):
            return None
        return AgentJob.model_validate_json(document.body), document.revision

    async def _job_queued(self, stored: StoredMessage, message: Message) -> Decision:
        found = await self._job(stored, message)
        if found is not None and found[0].status is JobStatus.PENDING:
            self._queue.add(_place(found[0]))
        return Decision()

    async def _job_ended(self, stored: StoredMessage, message: Message) -> Decision:
        found = await self._job(stored, message)
        if found is None:
            return Decision()
        job, revision = found
        outcome = message.content["outcome"]
        self._queue.end(job.id)
        if outcome == "failed":
            return self._failed(job, revision, bool(message.content.get("final")))
        if outcome == "waiting":
            resume_at_ms = message.content.get("resumeAtMs")
            self._wait_until(job.id, resume_at_ms)
            timed = job.model_copy(update={"not_before_ms": resume_at_ms or 0})
            return _write(timed, revision)
        if outcome == "paused":
            self._paused.add(job.id)
        return self._measured(job)

    def _failed(self, job: AgentJob, revision: int, final: bool) -> Decision:
        now_ms = self._clock.now_ms()
        if not final and job.attempts < job.max_attempts:
            not_before_ms = now_ms + round(self._backoff.wait_s(job.attempts, self._random) * 1000)
            self._wait_until(job.id, not_before_ms)
            changed = {"status": JobStatus.PENDING, "not_before_ms": not_before_ms}
            return _write(job.model_copy(update=changed), revision)
        return self._ended(job, revision, JobStatus.FAILED, job.reason or "error")

    def _ended(self, job: AgentJob, revision: int, status: JobStatus, reason: str) -> Decision:
        """A job comes to its end without running: the record, word to whom it concerns."""
        now_ms = self._clock.now_ms()
        changed = {"status": status, "reason": reason, "completed_at": iso(now_ms)}
        job = job.model_copy(update=changed)
        decision = _write(job, revision)
        if job.reply_to:
            decision.sends.append(finished_send(job, SENDER, SCHEDULER, revision, now_ms))
        if status is JobStatus.FAILED:
            decision.puts.append(_dead_letter(job, now_ms))
        self._publish(decision, f"job:{status.value}", job)
        if status is JobStatus.FAILED:
            self._publish(decision, "agent:failed", job, error=job.error or reason)
        return decision

    def _measured(self, job: AgentJob) -> Decision:
        """Keep the mean time a kind of job takes; the estimate of waiting rests on it."""
        if not (job.started_at and job.completed_at and job.status is JobStatus.COMPLETED):
            return Decision()
        took_s = _ms(job.completed_at) / 1000 - _ms(job.started_at) / 1000
        seen = self._service.setdefault(job.agent_type, {"count": 0, "meanS": 0.0})
        seen["count"] += 1
        seen["meanS"] += (took_s - seen["meanS"]) / min(seen["count"], 50)
        body = to_json(self._service)
        return Decision(puts=[Put("stats", "service_times", SYSTEM, body)])

    async def _job_ready(self, stored: StoredMessage, message: Message) -> Decision:
        found = await self._job(stored, message)
        return self._make_pending(*found) if found else Decision()

    def _make_pending(self, job: AgentJob, revision: int) -> Decision:
        if job.status is not JobStatus.WAITING:
            return Decision()
        self._waiting.pop(job.id, None)
        changed = {"status": JobStatus.PENDING, "reason": None, "not_before_ms": 0}
        job = job.model_copy(update=changed)
        self._queue.add(_place(job))
        return _write(job, revision)

    async def _job_signal(self, stored: StoredMessage, message: Message) -> Decision:
        found = await self._job(stored, message)
        if found is None:
            return refuse("not_found", message.content["jobId"])
        job, _ = found
        send = self._to_agent(job, "job.signal", message.content, f"signal:{stored.message_id}")
        return Decision(sends=[send], reply={"ok": True})

    async def _job_cancel(self, stored: StoredMessage, message: Message) -> Decision:
        found = await self._job(stored, message)
        if found is None:
            return refuse("not_found", message.content["jobId"])
        job, revision = found
        if job.status.final:
            return refuse("already_ended", f"{job.id} is {job.status.value}")
        if job.status is JobStatus.RUNNING:
            return self._ask_host(job, "cancel", stored.message_id)
        self._queue.remove(job.id)
        self._waiting.pop(job.id, None)
        self._paused.discard(job.id)
        decision = self._ended(job, revision, JobStatus.CANCELLED, "cancelled")
        decision.reply = {"ok": True, "status": JobStatus.CANCELLED.value}
        return decision

    async def _job_pause(self, stored: StoredMessage, message: Message) -> Decision:
        found = await self._job(stored, message)
        if found is None:
            return refuse("not_found", message.content["jobId"])
        job, revision = found
        if job.status is JobStatus.RUNNING:
            return self._ask_host(job, "pause", stored.message_id)
        if job.status not in (JobStatus.PENDING, JobStatus.WAITING):
            return refuse("not_pausable", f"{job.id} is {job.status.value}")
        self._queue.remove(job.id)
        self._waiting.pop(job.id, None)
        self._paused.add(job.id)
        changed = {"status": JobStatus.PAUSED, "reason": "paused"}
        decision = _write(job.model_copy(update=changed), revision)
        decision.reply = {"ok": True, "status": JobStatus.PAUSED.value}
        return decision

    def _ask_host(self, job: AgentJob, what: str, cause: str) -> Decision:
        """Have the host that runs the job cancel or pause it; durable before it is said."""
        send = self._to_agent(job, f"job.{what}", {"jobId": job.id}, f"{what}:{cause}")
        asked = Put("asked", job.id, job.organization_id, what.encode())
        return Decision(
            puts=[asked],
            sends=[send],
            reply={"ok": True, "status": job.status.value},
        )

    async def _job_resume(self, stored: StoredMessage, message: Message) -> Decision:
        return await self._queue_again(stored, message, {JobStatus.PAUSED}, {})

    async def _job_retry(self, stored: StoredMessage, message: Message) -> Decision:
        fresh = {"attempts": 0, "error": None, "result": None, "completed_at": None}
        return await self._queue_again(stored, message, {JobStatus.FAILED}, fresh)

    async def _queue_again(
        self,
        stored: StoredMessage,
        message: Message,
        statuses: set[JobStatus],
        changed: dict[str, Any],
    ) -> Decision:
        found = await self._job(stored, message)
        if found is None:
            return refuse("not_found", message.content["jobId"])
        job, revision = found
        if job.status not in statuses:
            return refuse("wrong_status", f"{job.id} is {job.status.value}")
        self._paused.discard(job.id)
        pending = {"status": JobStatus.PENDING, "reason": None, "not_before_ms": 0, **changed}
        job = job.model_copy(update=pending)
        self._queue.add(_place(job))
        decision = _write(job, revision)
        decision.puts.append(Put("asked", job.id, job.organization_id, None))
        decision.reply = {"ok": True, "status": JobStatus.PENDING.value}
        return decision

    async def _scheduler_status(self, stored: StoredMessage, message: Message) -> Decision:
        return Decision(reply={"ok": True, **self.status()})

    async def _scheduler_control(self, stored: StoredMessage, message: Message) -> Decision:
        verb = message.message_type.removeprefix("scheduler.")
        self._control = {
            "paused": verb != "resume",
            "draining": verb == "drain",
            "by": str((message.content or {}).get("by", message.sender)),
            "at": iso(self._clock.now_ms()),
        }
        status = self.status()
        put = Put("scheduler", "control", SYSTEM, to_json(self._control))
        organization, _ = split(stored.sender)
        event = feed_event(
            organization,
            "scheduler:status",
            {"stats": status},
            ("scheduler",),
            self._clock.now_ms(),
        )
        return Decision(puts=[put], feed=[event], reply={"ok": True, **status})

    # Dispatch

    async def _dispatch(self) -> None:
        """Start as many jobs as the limits allow."""
        while not self._control["paused"]:
            chosen = self._queue.next()
            if chosen is None:
                return
            await self._start(chosen.job_id)

    async def _start(self, job_id: str) -> None:
        document = await self._patiently(lambda: self._store.get("job", job_id))
        if document is None:
            return
        job = AgentJob.model_validate_json(document.body)
        if job.status is not JobStatus.PENDING:
            return
        now_ms = self._clock.now_ms()
        job = job.model_copy(
            update={
                "status": JobStatus.RUNNING,
                "attempts": job.attempts + 1,
                "reason": None,
                "not_before_ms": 0,
                "started_at": job.started_at or iso(now_ms),
            }
        )
        self._queue.start(job.id, job.organization_id)
        decision = _write(job, document.revision)
        run_id = f"run:{job.id}:{document.revision}"
        decision.sends.append(self._to_agent(job, "job.run", {"jobId": job.id}, run_id))
        self._publish(decision, "job:started", job)
        self._publish(decision, "agent:started", job)
        await self._commit(decision)

    def _to_agent(self, job: AgentJob, message_type: str, content: Any, message_id: str) -> Send:
        message = Message(
            message_id=message_id,
            sender=SENDER,
            recipient=job.agent,
            message_type=message_type,
            content=content,
            timestamp=iso(self._clock.now_ms()),
        )
        where = address(job.organization_id, job.agent)
        return Send(message_id, SCHEDULER, where, message.to_json())

    def _publish(self, decision: Decision, event: str, job: AgentJob, **more: Any) -> None:
        data = {"agentId": job.agent, "jobId": job.id, "status": job.status.value, **more}
        decision.feed.append(
            feed_event(job.organization_id, event, data, job_rooms(job), self._clock.now_ms())
        )

    # Time

    def _wait_until(self, job_id: str, at_ms: int | None) -> None:
        self._waiting[job_id] = at_ms
        if at_ms is not None:
            heapq.heappush(self._due, (at_ms, job_id))

    def _wait_s(self) -> float:
        if not self._due:
            return POLL_WAIT_S
        left_ms = self._due[0][0] - self._clock.now_ms()
        return min(POLL_WAIT_S, max(0.0, left_ms / 1000))

    async def _release_due(self) -> None:
        """Queue the jobs whose time has come."""
        now_ms = self._clock.now_ms()
        while self._due and self._due[0][0] <= now_ms:
            at_ms, job_id = heapq.heappop(self._due)
            if self._waiting.get(job_id, -1) != at_ms:
                continue
            del self._waiting[job_id]
            await self._release(job_id)

    async def _release(self, job_id: str) -> None:
        document = await self._patiently(lambda: self._store.get("job", job_id))
        if document is None:
            return
        job = AgentJob.model_validate_json(document.body)
        if job.status is JobStatus.PENDING:
            self._queue.add(_place(job))
        else:
            await self._commit(self._make_pending(job, document.revision))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except StoreUnavailableError:
                await asyncio.sleep(RETRY_S * (0.5 + self._random()))


def _place(job: AgentJob) -> Any:
    return place(job.id, job.organization_id, _ms(job.queued_at), job.priority)


def _write(job: AgentJob, revision: int) -> Decision:
    """A decision that writes the record, if nobody has since it was read."""
    terms = tuple(f"{name}={value}" for name, value in job_terms(job).items())
    put = Put("job", job.id, job.organization_id, job.to_json(), terms, revision)
    return Decision(puts=[put])


def _dead_letter(job: AgentJob, now_ms: int) -> Put:
    letter = {
        "id": job.id,
        "agent": job.agent,
        "sender": SENDER,
        "error": job.error or job.reason or "",
        "attempts": job.attempts,
        "at": iso(now_ms),
    }
    terms = (f"agent={job.agent}",)
    return Put("dead_letter", f"job/{job.id}", job.organization_id, to_json(letter), terms, ANY)


def _ms(timestamp: str) -> int:
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)
