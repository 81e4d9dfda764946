"""A scheduler that takes over while runs end: what it reads and what it has still to hear."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec.structs import replace

from runtime.clock import SystemClock
from runtime.ids import SCHEDULER, Ids
from runtime.job import AgentJob, JobStatus
from runtime.jobs.events import record_put
from runtime.jobs.rounds import ENDS_MAX
from runtime.message import Message
from runtime.schedule.queue import Limits
from runtime.scheduler import Scheduler
from runtime.store.contract import ABSENT, Ack, Commit, Committed, Document, Fence, Send
from runtime.store.memory import MemoryStore
from tests.troupe import eventually

WHERE, AGENT, JOB, RUN = "acme/worker:one", "worker:one", "job_1", "run:job_1:0"
BETA = "beta/client:eve"


class Late(MemoryStore):
    """Lets something happen right before jobs are read."""

    before: Callable[[], Awaitable[None]] | None = None

    async def list_documents(self, collection: str, *rest: Any, **more: Any) -> Sequence[Document]:
        if collection == "job" and self.before is not None:
            happens, self.before = self.before, None
            await happens()
        return await super().list_documents(collection, *rest, **more)


def said(
    kind: str, message_id: str, by: str, to: str, where: tuple[str, str], **content: Any
) -> Send:
    message = Message(
        message_id=message_id, sender=by, recipient=to, message_type=kind,
        content={"jobId": JOB, **content}, timestamp="2026-01-01T00:00:00Z",
    )  # fmt: skip
    return Send(message_id, *where, message.to_json())


async def test_a_run_that_ends_in_a_wait_while_records_are_read_has_not_failed() -> None:
    """Its job would be started again at once as a second attempt, and lose its slot meanwhile."""
    clock = SystemClock()
    store = Late(clock)
    job = AgentJob.new(
        id=JOB, organization_id="acme", agent_type="worker", agent_id=AGENT, now_ms=clock.now_ms()
    )
    running = replace(
        job, status=JobStatus.RUNNING, attempts=1, max_attempts=4, started_at=job.created_at
    )
    run = said("job.run", RUN, "scheduler:main", AGENT, (SCHEDULER, WHERE))
    await store.commit([Commit("system", puts=(record_put(running, ABSENT),), sends=(run,))])
    incarnation = await store.register("host", "host", 600)
    [mine] = await store.claim("host", 1, [WHERE])
    fence = Fence(incarnation, mine.epoch)
    told = ("scheduler:main", (WHERE, SCHEDULER))
    ready = said("job.ready", "job.ready:job_1:7", AGENT, *told)
    await store.commit([Commit("acme", WHERE, fence, sends=(ready,))])

    async def ends() -> None:
        waits = replace(running, status=JobStatus.WAITING, reason="resting")
        ended = said("job.ended", "job.ended:job_1:1", AGENT, *told, outcome="waiting", tookMs=5)
        commit = Commit(
            "acme", WHERE, fence, acks=(Ack(RUN),), puts=(record_put(waits, 1),), sends=(ended,)
        )
        [answer] = await store.commit([commit])
        assert isinstance(answer, Committed)

    store.before = ends
    scheduler = Scheduler(store, clock, Ids(clock), random.random, Limits(1, 1))
    task = asyncio.create_task(scheduler.run())

    async def goes_on() -> bool:
        return len(await store.inbox(WHERE, 0, 10)) > 0 and not await store.inbox(SCHEDULER, 0, 1)

    await eventually(goes_on)
    document = await store.get("job", JOB)
    assert document is not None
    assert AgentJob.from_json(document.body).attempts == 1
    assert scheduler.status()["running"] == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def known(**changed: Any) -> AgentJob:
    """A job with an agent of its own that has run before."""
    job = AgentJob.new(id=JOB, organization_id="acme", agent_type="worker", now_ms=0)
    return replace(job, attempts=1, max_attempts=4, started_at=job.created_at, **changed)


async def taken_over(store: MemoryStore, limits: Limits) -> dict[str, Any]:
    """How it stands once a scheduler has heard all that waited for it."""
    clock = SystemClock()
    scheduler = Scheduler(store, clock, Ids(clock), random.random, limits)
    task = asyncio.create_task(scheduler.run())

    async def has_heard() -> bool:
        return bool(scheduler.status()["epoch"]) and not await store.inbox(SCHEDULER, 0, 1)

    await eventually(has_heard)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return scheduler.status()


async def test_a_job_does_not_start_before_the_end_of_its_last_run_is_heard() -> None:
    """Ends are heard so many a round: one heard later would count that wait as an attempt."""
    store = MemoryStore(SystemClock())
    own = "acme/worker:job_1"
    told = (own.partition("/")[2], "scheduler:main", (own, SCHEDULER))
    others = [
        said("job.ended", f"job.ended:other:{number}", *told, jobId="other", outcome="waiting")
        for number in range(ENDS_MAX)
    ]
    ended = said("job.ended", "job.ended:job_1:1", *told, outcome="waiting", tookMs=5)
    pending = known(status=JobStatus.PENDING)  # its signal came before that was heard
    puts = (record_put(pending, ABSENT),)
    await store.commit([Commit("system", puts=puts, sends=(*others, ended))])
    assert (await taken_over(store, Limits(5, 5)))["running"] == 1
    document = await store.get("job", JOB)
    assert document is not None
    assert AgentJob.from_json(document.body).attempts == 1


async def test_a_message_that_is_named_like_an_end_holds_no_slot() -> None:
    """Any organization could have another's jobs hold all slots while a scheduler lives."""
    store = MemoryStore(SystemClock())
    waits = known(status=JobStatus.WAITING, reason="question")
    named = said("hello", "job.ended:job_1:1", "client:eve", "scheduler:main", (BETA, SCHEDULER))
    await store.commit([Commit("acme", puts=(record_put(waits, ABSENT),))])
    await store.commit([Commit("beta", sends=(named,))])
    stands = await taken_over(store, Limits(1, 1))
    assert (stands["running"], stands["waiting"]) == (0, 1)
