"""The scheduler: one queue of jobs, dispatched by priority under limits.

It is the single writer of a job's record while the job is not running, and it
works like an agent: an inbox, an epoch, and one commit for what each message
led to.  To dispatch is to commit `status=running` together with the message
`job.run` for the job's agent; from there on the host that claims the agent is
the record's writer until `job.ended` comes back.  So nothing is lost between
the two, and a second scheduler can run but not write.

What it holds in memory is rebuilt from the job records at every start.  Where
each job is, is `jobtable`'s; what each message about one leads to, `jobdesk`'s.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from runtime import decisions
from runtime.backoff import Backoff
from runtime.clock import Clock, iso
from runtime.decisions import Decision, refuse
from runtime.errors import InvalidMessageError, StoreUnavailableError
from runtime.group import GroupCommitter
from runtime.ids import HOME, SCHEDULER, SYSTEM, Ids, split
from runtime.job import AgentJob, JobStatus
from runtime.jobdesk import JobDesk
from runtime.jobtable import JobTable
from runtime.message import Message, WireModel
from runtime.patience import patiently
from runtime.schedule.queue import Limits
from runtime.standing import COLLECTION, Control, Present, read, standing
from runtime.store.contract import (
    BATCH_MAX,
    DEAD_LETTERS,
    Ack,
    Activation,
    Commit,
    Document,
    Fence,
    Put,
    Refused,
    Store,
    StoredMessage,
)
from runtime.turn import feed_event, to_json

logger = logging.getLogger(__name__)

POLL_WAIT_S = 10.0
RETRY_S = 0.2
LEASE_S = 10.0
RETRY = "job.retry"
ENDED = "job.ended"
DECIDE_MAX = 3
"""Times one message is decided on when a record changes under the decision."""


PRIVATE = ("changedBy", "owner", "epoch")
"""What of the status is not everybody's business."""


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
        name: str = "scheduler",
    ) -> None:
        """
        Args:
            name: a scheduler takes over at once from an older one of its name, and waits
                for the lease of any other.
        """
        self.name = name
        self.owner = f"{name}/{ids.ulid()}"
        self._store = store
        self._clock = clock
        self._ids = ids
        self._limits = limits or Limits()
        self._jobs = JobTable(self._limits)
        self._desk = JobDesk(self._jobs, clock, random, backoff or Backoff())
        self._control = Control()
        self._fence = Fence("", 0)
        self._group = GroupCommitter(store)
        self._cursor = 0

    # Life

    async def run(self) -> None:
        """Take the schedule over, rebuild, and work until cancelled.

        Raises:
            FencedError: another scheduler has the epoch, or the store knows this one
                no more; nothing more was written.
        """
        incarnation = await patiently(lambda: self._store.register(self.owner, self.name, LEASE_S))
        tasks = [
            asyncio.create_task(self._renew(incarnation)),
            asyncio.create_task(self._work(incarnation)),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await self._group.close()

    async def _work(self, incarnation: str) -> None:
        pending = await self._take_over(incarnation)
        await self._rebuild()
        await self._handle_all(pending)
        while True:
            await self._dispatch()
            poll = await patiently(
                lambda: self._store.poll(self.owner, self._cursor, BATCH_MAX, self._wait_s())
            )
            self._cursor = poll.cursor
            await self._handle_all(poll.messages)
            for job_id in self._jobs.take_due(self._clock.now_ms()):
                await self._release(job_id)

    def status(self) -> dict[str, Any]:
        """Counts and state, as `GET /api/scheduler/status` answers them from the store."""
        return standing(self._control, self._present(), self._jobs.counts())

    def _present(self) -> Present:
        return Present(owner=self.owner, epoch=self._fence.epoch, max_concurrent=self._limits.total)

    async def _take_over(self, incarnation: str) -> tuple[StoredMessage, ...]:
        while True:
            claimed = await self._claim()
            if claimed:
                self._fence = Fence(incarnation, claimed[0].epoch)
                logger.info(
                    "the scheduler is up, epoch %d",
                    claimed[0].epoch,
                    extra={"action": "scheduler.started", "epoch": claimed[0].epoch},
                )
                return claimed[0].inbox
            await asyncio.sleep(RETRY_S)

    async def _claim(self) -> list[Activation]:
        """Claim the scheduler's own inbox; empty while another holds it."""
        try:
            return await self._store.claim(self.owner, 1, [SCHEDULER])
        except StoreUnavailableError:  # it may be held now: let go, so that it can be claimed
            await patiently(lambda: self._store.release(self.owner, [SCHEDULER]))
            return []

    async def _renew(self, incarnation: str) -> None:
        """Keep the lease; who has lost it hears of no message any more, and must say so."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            if not await patiently(lambda: self._store.renew(self.owner, LEASE_S)):
                raise FencedError("its lease is another's")
            if (await patiently(self._store.health)).incarnation != incarnation:
                raise FencedError("the store has another incarnation")

    async def _rebuild(self) -> None:
        """Read what the records say; they are the only truth. First tell whose turn it is."""
        await self._commit(Decision(puts=[_put("present", self._present())]))
        self._control = read(
            await patiently(lambda: self._store.get(COLLECTION, "control")), Control
        )
        service = await patiently(lambda: self._store.get("stats", "service_times"))
        if service is not None:
            self._desk.service = json.loads(service.body)
        for status in (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.WAITING, JobStatus.PAUSED):
            for document in await self._all_jobs(status):
                job = AgentJob.model_validate_json(document.body)
                self._jobs.admit(job, self._clock.now_ms())

    async def _all_jobs(self, status: JobStatus) -> list[Document]:
        found: list[Document] = []
        after: str | None = None
        terms = [f"status={status.value}"]
        while True:
            page = await patiently(
                lambda after=after: self._store.list_documents(  # type: ignore[misc]
                    "job", None, terms, after, BATCH_MAX, descending=False
                )
            )
            found.extend(page)
            if len(page) < BATCH_MAX:
                return found
            after = page[-1].key

    # Messages

    async def _handle_all(self, messages: tuple[StoredMessage, ...]) -> None:
        """Those about one job in their order, those about several jobs at once."""
        by_job: dict[str | None, list[StoredMessage]] = {}
        for stored in messages:
            by_job.setdefault(_job_of(stored), []).append(stored)
        await asyncio.gather(*(self._handle_in_order(about) for about in by_job.values()))

    async def _handle_in_order(self, messages: list[StoredMessage]) -> None:
        for stored in messages:
            await self._handle(stored)

    async def _handle(self, stored: StoredMessage) -> None:
        for _ in range(DECIDE_MAX):
            try:
                decision = await self._decide(stored, Message.from_json(stored.body))
            except (InvalidMessageError, KeyError, TypeError) as error:
                decision = refuse("invalid_message", f"{type(error).__name__}: {error}")
            reply = to_json(decision.reply) if decision.reply is not None else None
            refused = await self._commit(decision, (Ack(stored.message_id, reply),))
            if refused != "revision_conflict":
                return

    async def _decide(self, stored: StoredMessage, message: Message) -> Decision:
        organization, _ = split(stored.sender)
        if message.message_type == "scheduler.status":
            return Decision(reply={"ok": True, **self.status()})
        if message.message_type.startswith("scheduler."):
            return self._scheduler_control(organization, message)
        if message.message_type not in (RETRY, ENDED) and not self._desk.knows(
            message.message_type
        ):
            raise KeyError(message.message_type)
        job_id = message.content["jobId"]
        document = await patiently(lambda: self._store.get("job", job_id))
        if document is None or organization not in (SYSTEM, document.organization):
            return refuse("not_found", job_id)
        job = AgentJob.model_validate_json(document.body)
        if message.message_type == ENDED:
            asked = await patiently(lambda: self._store.get("asked", job_id))
            word = asked.body.decode() if asked is not None else None
            return self._desk.ended(job, document.revision, message, word)
        if message.message_type != RETRY:
            return self._desk.decide(job, document.revision, message)
        key = decisions.letter_key(job_id)
        letter = await patiently(lambda: self._store.get(DEAD_LETTERS, key))
        return self._desk.retry(job, document.revision, message, letter)

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
        if not isinstance(answer, Refused):
            return None
        if answer.reason in ("stale_epoch", "stale_incarnation"):
            raise FencedError(answer.reason)
        logger.warning(
            "a decision of the scheduler was refused: %s %s",
            answer.reason,
            answer.detail,
            extra={"action": "commit.refused", "reason": answer.reason},
        )
        return answer.reason

    # The scheduler as a whole

    def _scheduler_control(self, organization: str, message: Message) -> Decision:
        verb = message.message_type.removeprefix("scheduler.")
        if verb not in ("pause", "resume", "drain"):
            raise KeyError(message.message_type)
        if organization not in (SYSTEM, HOME):
            return refuse("not_yours", f"only {HOME} may {verb} the scheduler")
        now_ms = self._clock.now_ms()
        self._control = Control(
            paused=verb != "resume",
            draining=verb == "drain",
            by=str((message.content or {}).get("by", message.sender)),
            at=iso(now_ms),
        )
        status = self.status()
        # of the system, so that every organization is told; so nobody's name is in it
        stats = {name: value for name, value in status.items() if name not in PRIVATE}
        event = feed_event(SYSTEM, "scheduler:status", {"stats": stats}, ("scheduler",), now_ms)
        put = _put("control", self._control)
        return Decision(puts=[put], feed=[event], reply={"ok": True, **status})

    # Dispatch

    async def _dispatch(self) -> None:
        """Start as many jobs as the limits allow, all at once."""
        chosen: list[str] = []
        while not self._control.paused and (place := self._jobs.next()) is not None:
            chosen.append(place.job_id)
        await asyncio.gather(*(self._start(job_id) for job_id in chosen))

    async def _start(self, job_id: str) -> None:
        document = await patiently(lambda: self._store.get("job", job_id))
        if document is None:
            self._jobs.ended(job_id)
            return
        job = AgentJob.model_validate_json(document.body)
        if job.status not in (JobStatus.PENDING, JobStatus.WAITING):
            self._jobs.ended(job_id)
            return
        refused = await self._commit(decisions.start(job, document.revision, self._clock.now_ms()))
        if refused is not None:
            await self._check(job.id)

    async def _check(self, job_id: str) -> None:
        """A start was refused: it had landed, or the record changed; go by the record."""
        document = await patiently(lambda: self._store.get("job", job_id))
        if document is None:
            self._jobs.ended(job_id)
            return
        job = AgentJob.model_validate_json(document.body)
        if job.status is not JobStatus.RUNNING:
            self._jobs.ended(job_id)
            self._jobs.admit(job, self._clock.now_ms())

    # Time

    def _wait_s(self) -> float:
        due_ms = self._jobs.next_due_ms()
        if due_ms is None:
            return POLL_WAIT_S
        return min(POLL_WAIT_S, max(0.0, (due_ms - self._clock.now_ms()) / 1000))

    async def _release(self, job_id: str) -> None:
        """Queue a job whose time has come."""
        document = await patiently(lambda: self._store.get("job", job_id))
        if document is None:
            return
        job = AgentJob.model_validate_json(document.body)
        if job.status is JobStatus.PENDING:
            self._jobs.admit(job, self._clock.now_ms())
        elif job.status is JobStatus.WAITING:
            self._jobs.queued(job)  # its record goes on saying what it waits for: it may yet


def _put(key: str, record: WireModel) -> Put:
    return Put(COLLECTION, key, SYSTEM, record.to_json())


def _job_of(stored: StoredMessage) -> str | None:
    """The job that a message is about; None: none, or nobody can say."""
    try:
        job_id = Message.from_json(stored.body).content["jobId"]
    except (InvalidMessageError, KeyError, TypeError):
        return None
    return job_id if isinstance(job_id, str) else None
