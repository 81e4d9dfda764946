"""What each message about a job leads to, and where the job is afterwards; no store, no host."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from runtime.backoff import Backoff
from runtime.clock import ManualClock
from runtime.job import AgentJob, JobStatus
from runtime.jobs.decisions import Decision
from runtime.jobs.desk import ATTEMPTS_MAX, JobDesk
from runtime.jobs.table import STALE_MAX, JobTable
from runtime.message import Message
from runtime.schedule.queue import Limits


class Desk:
    """A desk with one job, whose record follows what the desk decides."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.table = JobTable(Limits())
        self.desk = JobDesk(self.table, self.clock, lambda: 0.5, Backoff())
        self.revision = 1
        self.asked: str | None = None
        self.job = AgentJob.new(
            id="job_1", organization_id="acme", agent_type="worker", now_ms=self.clock.now_ms()
        )

    def running(self) -> None:
        """The job has been started and its host has written nothing yet."""
        self.table.started(self.job)
        self.host_writes(JobStatus.RUNNING, attempts=self.job.attempts + 1)

    def host_writes(self, status: JobStatus, **changed: object) -> None:
        self.job = replace(self.job, status=status, **changed)
        self.revision += 1

    def hear(self, message_type: str, **content: object) -> Decision:
        """Decide on a message, as the scheduler does, and write what was decided."""
        message = Message(
            message_id="m",
            sender="client:test",
            recipient="scheduler:main",
            message_type=message_type,
            content={"jobId": self.job.id, **content},
            timestamp="2026-11-21T08:00:00.000Z",
        )
        if message_type == "job.ended":
            decision = self.desk.ended(self.job, self.revision, message, self.asked)
        else:
            decision = self.desk.decide(self.job, self.revision, message, self.asked)
        for put in decision.puts:
            if put.collection == "job":
                self.job = AgentJob.from_json(put.body)
                self.revision += 1
            if put.collection == "asked":
                self.asked = put.body.decode() if put.body else None
        return decision

    @property
    def is_next(self) -> bool:
        """Whether the job would be started now."""
        place = self.table.next()
        return place is not None and place.job_id == self.job.id


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.running()
    return desk


def test_a_job_readied_before_its_wait_is_heard_of_goes_on(desk) -> None:
    """The queue would keep for ever what its record says is ready."""
    desk.host_writes(JobStatus.WAITING, reason="question")
    desk.hear("job.ready")
    desk.hear("job.ended", outcome="waiting")
    assert (desk.job.status, desk.job.attempts) == (JobStatus.PENDING, 0)
    assert desk.is_next


def test_a_job_resumed_before_its_pause_is_heard_of_goes_on(desk) -> None:
    """A person's resume would be answered ok and then forgotten."""
    desk.host_writes(JobStatus.PAUSED)
    assert desk.hear("job.resume").reply["ok"]
    desk.hear("job.ended", outcome="paused")
    assert (desk.job.status, desk.job.attempts) == (JobStatus.PENDING, 0)
    assert desk.is_next


def test_a_job_cancelled_before_its_wait_is_heard_of_stays_cancelled(desk) -> None:
    """A job that has ended would be said to wait."""
    desk.host_writes(JobStatus.WAITING, reason="question")
    desk.hear("job.cancel")
    decision = desk.hear("job.ended", outcome="waiting")
    assert desk.job.status is JobStatus.CANCELLED
    assert decision == Decision()
    assert desk.table.counts()["waiting"] == 0


@pytest.mark.parametrize("outcome", ["waiting", "paused", "failed"])
def test_a_cancel_that_met_the_end_of_a_run_holds(desk, outcome) -> None:
    """A job cancelled while its run let go would wait, pause or be tried again all the same."""
    assert desk.hear("job.cancel").reply == {"ok": True, "status": "running"}
    status = JobStatus.RUNNING if outcome == "failed" else JobStatus(outcome)
    desk.host_writes(status, reason="question")
    desk.hear("job.ended", outcome=outcome)
    assert desk.job.status is JobStatus.CANCELLED
    assert not desk.is_next
    counts = desk.table.counts()
    assert [counts[name] for name in ("running", "queued", "waiting", "paused")] == [0, 0, 0, 0]


@pytest.mark.parametrize("outcome", ["waiting", "failed"])
def test_a_pause_that_met_the_end_of_a_run_holds(desk, outcome) -> None:
    """A job paused while its run let go would start again by itself."""
    assert desk.hear("job.pause").reply["ok"]
    desk.host_writes(JobStatus.WAITING if outcome == "waiting" else JobStatus.RUNNING)
    desk.hear("job.ended", outcome=outcome)
    assert desk.job.status is JobStatus.PAUSED
    assert not desk.is_next
    assert desk.hear("job.resume").reply["ok"]
    assert desk.asked is None
    assert desk.is_next


def test_a_failure_for_good_is_one_whatever_was_asked(desk) -> None:
    """A job that can't succeed would be reported as cancelled, without its dead letter."""
    desk.hear("job.pause")
    desk.hear("job.ended", outcome="failed", final=True, error="no")
    assert desk.job.status is JobStatus.FAILED


def test_pausing_is_no_attempt(desk) -> None:
    """A job paused as often as it may fail would be given up at its first failure."""
    for _ in range(ATTEMPTS_MAX + 1):
        desk.host_writes(JobStatus.PAUSED)
        desk.hear("job.ended", outcome="paused")
        assert desk.job.attempts == 0
        desk.hear("job.resume")
        assert desk.is_next
        desk.running()
    desk.hear("job.ended", outcome="failed", error="busy")
    assert desk.job.status is JobStatus.PENDING


def shared(number: int) -> AgentJob:
    """A job of an agent that has several."""
    return AgentJob.new(
        id=f"job_shared{number}", organization_id="acme", now_ms=number,
        agent_type="worker", agent_id="worker:one",
    )  # fmt: skip


def hear_end(desk: Desk, job: AgentJob, outcome: str) -> Decision:
    desk.job, desk.revision = job, 1
    desk.running()
    if outcome == "failed":
        return desk.hear("job.ended", outcome="failed", final=True, error="no")
    desk.host_writes(JobStatus.COMPLETED)
    return desk.hear("job.ended", outcome="completed")


@pytest.mark.parametrize(
    ("outcomes", "held"),
    [
        (["failed"], False),
        (["failed", "failed"], True),
        (["failed", "completed", "failed"], False),
        (["failed", "failed", "failed"], True),
    ],
)
def test_two_failures_in_a_row_hold_their_agent(desk, outcomes, held) -> None:
    """An agent that can't do its work would try job after job; one mishap would stop it."""
    decisions = [hear_end(desk, shared(number), what) for number, what in enumerate(outcomes)]
    desk.table.queued(shared(9))
    assert (desk.table.next() is None) is held
    events = [event.event for decision in decisions for event in decision.feed]
    assert events.count("agent:paused") == held
    decision = desk.desk.holds.ask("acme/worker:one", False, "ann", 0)
    assert [put.body for put in decision.puts] == [None]
    assert (desk.table.next() is not None) is held


def test_an_event_tells_what_the_job_is_by_then(desk) -> None:
    """Who follows the feed would have a job run that has failed, and fail that is tried again."""
    held = [hear_end(desk, shared(number), "failed") for number in range(2)][-1]
    assert status_in(held, "agent:paused") == status_in(held, "job:failed") == "failed"
    message = Message(
        message_id="m", sender="client:test", recipient="scheduler:main",
        message_type="job.retry", content={"jobId": desk.job.id, "by": "ann"},
        timestamp="2026-11-21T08:00:00.000Z",
    )  # fmt: skip
    again = desk.desk.retry(desk.job, desk.revision, message, None)
    assert status_in(again, "job:retried") == "pending"


def status_in(decision: Decision, event: str) -> str:
    [told] = [json.loads(one.body) for one in decision.feed if one.event == event]
    return told["status"]


def test_an_agent_of_a_jobs_own_is_not_held(desk) -> None:
    """A document for each job that ever failed would be kept, and nobody to let go."""
    decision = desk.hear("job.ended", outcome="failed", final=True, error="no")
    assert "hold" not in {put.collection for put in decision.puts}


def test_what_was_refused_does_not_count_twice(desk) -> None:
    """A decision made again would hold an agent that has failed once."""
    hear_end(desk, shared(0), "failed")
    desk.desk.holds.reload("acme/worker:one", None)  # the commit of it was refused
    hear_end(desk, shared(0), "failed")
    desk.table.queued(shared(9))
    assert desk.table.next() is not None


def test_a_cancel_holds_whatever_is_asked_after_it(desk) -> None:
    """A job whose cancel was answered ok would be paused, or go on, and hold its slot."""
    desk.hear("job.cancel")
    assert [desk.hear(f"job.{verb}").reply["code"] for verb in ("pause", "resume")] == [
        "cancelling",
        "cancelling",
    ]
    desk.host_writes(JobStatus.WAITING, reason="question")  # and its end is not read yet
    assert desk.hear("job.pause").reply["code"] == "cancelling"
    desk.hear("job.ended", outcome="waiting")
    assert desk.job.status is JobStatus.CANCELLED
    assert desk.hear("job.pause").reply["code"] == "wrong_status"


def test_a_resume_takes_back_a_pause_that_was_not_met_yet(desk) -> None:
    """It would be refused, and the run pause for good at its next step."""
    desk.hear("job.pause")
    decision = desk.hear("job.resume")
    assert decision.reply == {"ok": True, "status": "running"}
    assert [send.message_id for send in decision.sends] == ["resume:m"]
    assert desk.asked is None
    assert desk.hear("job.resume").reply["code"] == "wrong_status"
    desk.host_writes(JobStatus.WAITING, reason="question")
    desk.hear("job.ended", outcome="waiting")
    assert desk.job.status is JobStatus.WAITING


def test_a_resume_takes_back_a_pause_of_a_run_that_has_let_go_to_wait(desk) -> None:
    """The pause would hold as soon as the end of the run is read, after the resume."""
    desk.hear("job.pause")
    desk.host_writes(JobStatus.WAITING, reason="question")
    assert desk.hear("job.resume").reply["ok"]
    desk.hear("job.ended", outcome="waiting")
    assert desk.job.status is JobStatus.WAITING


def test_a_run_that_paused_as_its_pause_was_taken_back_goes_on(desk) -> None:
    """The resume would be answered ok, and the job stay paused."""
    desk.hear("job.pause")
    desk.hear("job.resume")
    desk.host_writes(JobStatus.PAUSED)
    decision = desk.hear("job.ended", outcome="paused", asked=True)
    assert (desk.job.status, desk.job.attempts) == (JobStatus.PENDING, 0)
    assert [event.event for event in decision.feed] == ["job:resumed", "agent:resumed"]
    assert desk.is_next


def test_a_run_that_paused_and_was_asked_to_again_stays_paused(desk) -> None:
    """What was asked last would not count."""
    for verb in ("pause", "resume", "pause"):
        desk.hear(f"job.{verb}")
    desk.host_writes(JobStatus.PAUSED)
    desk.hear("job.ended", outcome="paused", asked=True)
    assert desk.job.status is JobStatus.PAUSED


def test_a_run_that_pauses_by_itself_stays_paused(desk) -> None:
    """It would run and pause in turns, for ever."""
    desk.host_writes(JobStatus.PAUSED)
    desk.hear("job.ended", outcome="paused", asked=False)
    assert desk.job.status is JobStatus.PAUSED


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.WAITING])
def test_pausing_what_does_not_run_is_told(desk, status) -> None:
    """Who follows the job or its agent would see it queued, or waiting, until it is resumed."""
    desk.host_writes(status)
    decision = desk.hear("job.pause")
    assert [event.event for event in decision.feed] == ["job:paused", "agent:paused"]
    for event in decision.feed:
        assert {"job:job_1", "agent:worker:job_1"} <= set(event.rooms)


def test_the_pause_of_a_run_is_told_by_its_host_alone(desk) -> None:
    """It would be told twice."""
    desk.hear("job.pause")
    desk.host_writes(JobStatus.PAUSED)
    assert desk.hear("job.ended", outcome="paused", asked=True).feed == []


def test_a_service_time_is_how_long_a_run_held_its_slot(desk) -> None:
    """Days of waiting for a person would be promised to the next in the queue."""
    desk.host_writes(JobStatus.WAITING, reason="question")
    desk.hear("job.ended", outcome="waiting", tookMs=4_000)
    desk.clock.advance(3 * 86_400)
    desk.running()
    desk.host_writes(JobStatus.COMPLETED)
    desk.hear("job.ended", outcome="completed", tookMs=6_000)
    assert desk.desk.service == {"worker": {"count": 2, "meanS": 5.0}}


def test_the_ends_of_waits_that_are_over_are_forgotten(desk) -> None:
    """A job that waits until a day, and is signalled each second, would fill the memory."""
    table, other = desk.table, replace(desk.job, id="job_2")
    table.wait_until(other.id, 5)
    for number in range(1_000):
        table.wait_until(desk.job.id, 1_000_000 + number)
        table.queued(desk.job)
    assert len(table._due) <= 2 + STALE_MAX
    assert table.next_due_ms() == 5
    assert table.take_due(1_000_000_000) == ([other.id], [])
