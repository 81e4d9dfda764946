"""The age of the queue is how long a job could have been started, never how long it had to wait."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from runtime.backoff import Backoff
from runtime.clock import ManualClock
from runtime.ids import Ids
from runtime.job import AgentJob, JobStatus
from runtime.jobs.desk import JobDesk
from runtime.jobs.table import JobTable
from runtime.message import Message
from runtime.metrics import Sample
from runtime.schedule.queue import Limits
from runtime.scheduler import Scheduler
from runtime.store.memory import MemoryStore

HOUR_S = 3600


class Queue:
    """A table and a desk, and one job that was filed when it was made."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.table = JobTable(Limits())
        self.desk = JobDesk(self.table, self.clock, lambda: 0.5, Backoff(60, 60))
        self.job = AgentJob.new(
            id="job_1", organization_id="acme", agent_type="worker", now_ms=self.clock.now_ms()
        )

    def hear(self, job: AgentJob, message_type: str, **content: object) -> None:
        message = Message(
            message_id="m", sender="client:test", recipient="scheduler:main",
            message_type=message_type, content={"jobId": job.id, **content},
            timestamp="2026-11-21T08:00:00.000Z",
        )  # fmt: skip
        decide = self.desk.ended if message_type == "job.ended" else self.desk.decide
        decide(job, 1, message, None)

    def has_run(self, status: JobStatus, **changed: object) -> AgentJob:
        """The job after an hour of work."""
        self.clock.advance(HOUR_S)
        started = {"started_at": self.job.queued_at, "attempts": 1}
        return replace(self.job, status=status, **{**started, **changed})

    @property
    def age_s(self) -> float | None:
        oldest_ms = self.table.oldest_ms()
        return None if oldest_ms is None else (self.clock.now_ms() - oldest_ms) / 1000


@pytest.fixture
def queue() -> Queue:
    return Queue()


def test_a_job_ages_from_its_filing_on(queue: Queue) -> None:
    """While nobody schedules, the queue would not grow old."""
    queue.clock.advance(5)  # there was no scheduler yet
    queue.hear(queue.job, "job.queued")
    queue.clock.advance(5)
    assert queue.age_s == 10


def test_a_job_that_is_filed_for_later_does_not_age_before(queue: Queue) -> None:
    """Work for tomorrow would ring the alarm today."""
    later = replace(queue.job, not_before_ms=queue.clock.now_ms() + HOUR_S * 1000)
    queue.hear(later, "job.queued")
    assert queue.age_s is None
    queue.clock.advance(HOUR_S + 3)
    queue.table.take_due(queue.clock.now_ms())
    assert queue.age_s == 3


def test_a_retry_ages_from_the_end_of_its_backoff_on(queue: Queue) -> None:
    """An attempt that has failed after an hour would have waited for an hour."""
    running = queue.has_run(JobStatus.RUNNING)
    queue.table.started(running)
    queue.hear(running, "job.ended", outcome="failed", error="no")
    assert queue.age_s is None  # it waits for half a minute
    queue.clock.advance(32)
    queue.table.take_due(queue.clock.now_ms())
    assert queue.age_s == 2


@pytest.mark.parametrize(
    ("status", "message_type"),
    [(JobStatus.WAITING, "job.ready"), (JobStatus.PAUSED, "job.resume")],
)
def test_a_job_ages_from_the_end_of_its_wait_on(
    queue: Queue, status: JobStatus, message_type: str
) -> None:
    """What a person took a day to answer would look like a queue that has stood for a day."""
    job = queue.has_run(status, reason="question")
    queue.table.admit(job, queue.clock.now_ms())
    queue.hear(job, message_type)
    queue.clock.advance(4)
    assert queue.age_s == 4


def test_a_job_keeps_its_place_though_its_age_begins_anew(queue: Queue) -> None:
    """Who has waited would go behind those that came meanwhile."""
    queue.clock.advance(1)
    other = AgentJob.new(
        id="job_2", organization_id="acme", agent_type="worker", now_ms=queue.clock.now_ms()
    )
    queue.table.queued(other)
    queue.table.queued(queue.has_run(JobStatus.PENDING), queue.clock.now_ms())
    place = queue.table.next()
    assert place is not None and place.job_id == "job_1"


@pytest.mark.parametrize(
    ("has_run", "not_before_s", "age_s"),
    [
        (False, None, 2 * HOUR_S),  # it was filed two hours ago
        (False, HOUR_S, HOUR_S),  # for an hour later
        (True, HOUR_S, HOUR_S),  # its backoff was over then
        (True, None, 0),  # it was resumed, or had its answer: nobody has written when
    ],
)
def test_a_scheduler_that_begins_knows_the_ages(
    queue: Queue, has_run: bool, not_before_s: int | None, age_s: int
) -> None:
    """A restart would ring the alarm for what has waited for a person, or hide what stands."""
    job = queue.job
    if not_before_s is not None:
        job = replace(job, not_before_ms=queue.clock.now_ms() + not_before_s * 1000)
    if has_run:
        job = replace(job, started_at=job.queued_at)
    queue.clock.advance(2 * HOUR_S)
    queue.table.admit(job, queue.clock.now_ms())
    assert queue.age_s == age_s


async def test_the_gauge_shows_the_oldest_and_nothing_while_all_wait() -> None:
    """An alert would be rung by seconds that are milliseconds, or by yesterday's queue."""
    clock = ManualClock()
    scheduler = Scheduler(MemoryStore(clock), clock, Ids(clock), lambda: 0.5)
    job = AgentJob.new(
        id="job_1", organization_id="acme", agent_type="worker", now_ms=clock.now_ms()
    )
    scheduler._jobs.queued(job)
    clock.advance(90)
    assert _age_s(scheduler) == 90
    scheduler._jobs.next()
    assert _age_s(scheduler) == 0


def _age_s(scheduler: Scheduler) -> float:
    scheduler.measure()
    [age] = [one for one in scheduler._meter.drain() if _is_age(one)]
    return age.value


def _is_age(sample: Sample) -> bool:
    return sample.metric.name == "troupe_queue_age_seconds"
