"""The scheduler: one queue of jobs, dispatched by priority under limits, and schedules.

It is the single writer of a job's record while the job is not running, and it
works like an agent: an inbox, an epoch, and one commit for what each message
led to.  So nothing is lost between two steps, and a second scheduler can run
but not write.

What it holds in memory is rebuilt from the records at every start:

    jobs.seat        its inbox, lease and fence at the store
    jobs.table       where each job is
    jobs.desk        what each message about a job leads to
    jobs.control     what people ask of the queue as a whole
    jobs.dispatcher  decides, starts, writes
    plans            schedules: fired beside the queue, under the same fence
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import groupby
from typing import Any

from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.ids import Ids
from runtime.job import JobStatus
from runtime.jobs import decisions
from runtime.jobs.control import Controls
from runtime.jobs.desk import ATTEMPTS_MAX, JobDesk
from runtime.jobs.dispatcher import Dispatcher
from runtime.jobs.holds import HOLDS
from runtime.jobs.orphans import ending, orphans
from runtime.jobs.records import Record, record_of
from runtime.jobs.rounds import Heard
from runtime.jobs.seat import Seat
from runtime.jobs.table import JobTable
from runtime.metrics import Meter
from runtime.patience import patiently
from runtime.plans.book import Queue
from runtime.plans.desk import PlanDesk
from runtime.plans.planner import Planner
from runtime.schedule.queue import Limits
from runtime.standing import COLLECTION, Control, Present, read
from runtime.store.contract import BATCH_MAX, Document, Store, StoredMessage

logger = logging.getLogger(__name__)

POLL_WAIT_S = 10.0
OPEN = (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.WAITING, JobStatus.PAUSED)


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
        meter: Meter | None = None,
        attempts_max: int = ATTEMPTS_MAX,
        check_s: float = POLL_WAIT_S,
    ) -> None:
        """
        Args:
            attempts_max: tries of a job that does not say, the first among them.
            check_s: longest sleep; what comes or is due ends it sooner.
            name: a scheduler takes over at once from an older one of its name, and waits
                for the lease of any other.
            meter: whoever gives one also drains it.
        """
        self.name = name
        self._store = store
        self._clock = clock
        self._limits = limits or Limits()
        self._check_s = check_s
        self._meter = meter or Meter()
        self._seat = Seat(store, name, f"{name}/{ids.ulid()}")
        self._jobs = JobTable(self._limits)
        self._desk = JobDesk(self._jobs, clock, random, backoff or Backoff(), attempts_max)
        self._controls = Controls(self._jobs, self._desk.holds, clock)
        self._dispatcher = Dispatcher(
            store, self._seat, self._jobs, self._desk, self._controls, clock, self._meter
        )
        queue = Queue(
            commit=self._seat.write_plans,
            admit=self._dispatcher.admit,
            is_open=self._jobs.is_open,
            paused=lambda: self._controls.paused,
            fired=self._fired,
        )
        self._planner = Planner(store, clock, queue)
        self._plans = PlanDesk(self._planner, ids)

    async def run(self) -> None:
        """Take the seat, rebuild, and work until cancelled.

        Raises:
            FencedError: another scheduler has the epoch, or the store knows this one
                no more; nothing more was written.
        """
        await self._seat.register()
        try:
            await _together(self._seat.keep(), self._work())
        finally:
            await self._seat.leave()

    async def _work(self) -> None:
        pending = await self._seat.take()
        await self._rebuild()
        await self._planner.load()
        await self._heard(pending)
        await _together(self._planner.run(), self._dispatcher.work(), self._serve())

    async def _serve(self) -> None:
        while True:
            await self._heard(await self._seat.next(self._check_s))

    async def _heard(self, messages: tuple[StoredMessage, ...]) -> None:
        """What is about jobs makes rounds; what is about schedules is the planner's; in order."""
        if not messages:
            await self._dispatcher.heard(())
        heard = map(Heard.of, messages)
        for plans, some in groupby(heard, lambda one: self._plans.takes(one.message)):
            if plans:
                await self._heard_of_plans(some)
            else:
                await self._heard_of_jobs(list(some))

    async def _heard_of_jobs(self, heard: list[Heard]) -> None:
        await self._dispatcher.heard(heard)
        for one in heard:
            self._planner.about_job(one.job_id)

    async def _heard_of_plans(self, heard: Iterable[Heard]) -> None:
        for one in heard:
            assert one.message is not None
            await self._plans.handle(one.stored, one.message)

    def _fired(self, late_ms: int) -> None:
        self._meter.observe("troupe_schedule_late_seconds", late_ms / 1000)

    # How it stands

    def status(self) -> dict[str, Any]:
        """Counts and state, as `GET /api/scheduler/status` answers them from the store."""
        return self._controls.status()

    def measure(self) -> None:
        """Set the gauges of the meter to what is true now."""
        for state, count in self._jobs.counts().items():
            self._meter.set("troupe_jobs", count, state)
        self._meter.set("troupe_scheduler_paused", self._controls.paused)
        oldest_ms = self._jobs.oldest_ms()
        waited_ms = self._clock.now_ms() - oldest_ms if oldest_ms is not None else 0
        self._meter.set("troupe_queue_age_seconds", max(0, waited_ms) / 1000)

    # From the records

    async def _rebuild(self) -> None:
        """Read what the records say; they are the only truth. First tell whose turn it is."""
        seat, limits = self._seat, asdict(self._limits)
        most = limits.pop("total")
        present = Present(owner=seat.owner, epoch=seat.epoch, max_concurrent=most, limits=limits)
        await seat.write(self._controls.begins(present))
        self._controls.asked = read(await self._document(COLLECTION, "control"), Control)
        service = await self._document(decisions.STATS, decisions.SERVICE_TIMES)
        if service is not None:
            self._desk.service = json.loads(service.body)
        dues = await self._document(decisions.STATS, decisions.DUES)
        dues_ms = json.loads(dues.body)["queuedMs"] if dues is not None else 0
        self._desk.holds.load(await self._all(HOLDS, []))
        known: list[Record] = []
        for status in OPEN:
            documents = await self._all("job", [f"status={status.value}"])
            found = [one for one in map(record_of, documents) if one is not None]
            for record in found:
                self._dispatcher.found(record.job, dues_ms)
            if status is JobStatus.RUNNING:
                await self._take_in(found)
            known += found
        ends = await ending(self._store, [record.job for record in known])
        for record in known:
            if record.job.id in ends:  # its run has not let go yet, whatever the record says
                self._jobs.started(record.job)

    async def _take_in(self, running: list[Record]) -> None:
        """Queue the jobs anew of which nobody has the run."""
        lost = await orphans(self._store, [record.job for record in running])
        for record in running:
            job = record.job
            if job.id in lost:
                decision = decisions.requeued(job, record.revision)
                refused = await self._seat.write(decision)
                if refused is None or await self._seat.landed(decision):  # else it has just ended
                    self._jobs.ended(job.id)
                    assert decision.job is not None
                    self._jobs.queued(decision.job, self._clock.now_ms())
                    logger.warning(
                        "nobody ran %s, which was said to run; it is queued again",
                        job.id,
                        extra={"action": "job.orphaned", "job": job.id},
                    )

    async def _document(self, collection: str, key: str) -> Document | None:
        return await patiently(self._store.get, collection, key)

    async def _all(self, collection: str, terms: list[str]) -> list[Document]:
        found: list[Document] = []
        after: str | None = None
        while True:
            page = await patiently(
                self._store.list_documents, collection, None, terms, after, BATCH_MAX, False
            )
            if not page:
                return found
            found.extend(page)
            after = page[-1].key


async def _together(*works: Any) -> None:
    """Until one of them ends; the others have ended with it."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
