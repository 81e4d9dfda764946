"""What the scheduler counts and logs of runs: each once, whatever is lost, refused or repeated."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from runtime.agent import AgentState, BaseAgent, job_terms
from runtime.client import Write
from runtime.errors import JobWaiting, StoreError, StoreUnavailableError
from runtime.ids import HOME, SCHEDULER
from runtime.job import AgentJob, Job, JobResult, JobStatus
from runtime.jobs.events import ms_of
from runtime.message import Message
from runtime.metrics import Sample
from runtime.store.contract import Commit, Committed, Refused, Send
from runtime.store.memory import MemoryStore
from runtime.verify.loop import LoopClock, run
from tests.troupe import LocalTroupe, asked_job, eventually


class Worker(BaseAgent):
    """Does one after the other what its job's `script` says, a word a run."""

    kind = "worker"

    class State(AgentState):
        pass

    async def receive_message(self, message: Message) -> None:
        job_id, payload = message.content["jobId"], {"script": message.content["script"]}
        self.enqueue(asked_job(self, job_id, payload, max_attempts=3))

    async def process_task(self, job: Job) -> JobResult:
        script = job.record.payload["script"].split()
        word = script[await self._turn(job, script)]
        if word == "fail":
            raise RuntimeError("the outside is down")
        if word == "work":
            await asyncio.sleep(100)
        return JobResult(outcome="finished", summary="")

    async def _turn(self, job: Job, script: list[str]) -> int:
        """Which word is next: waits are by the clock, failures by the attempts."""
        now_ms = self.context.now_ms()
        waits = [place for place, word in enumerate(script) if word == "wait"]
        if waits and now_ms < ms_of(job.record.queued_at) + 10_000:
            raise JobWaiting("window", now_ms + 4_000)
        return len(waits) + job.record.attempts - 1


class Store(MemoryStore):
    """Loses the answers to some of what the scheduler commits; can't write some."""

    loses: Callable[[Commit], bool] = staticmethod(lambda commit: False)
    unwritable: Callable[[Commit], bool] = staticmethod(lambda commit: False)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lost: list[Sequence[Commit]] = []

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        if any(one.agent == SCHEDULER and self.unwritable(one) for one in commits):
            raise StoreError("there is no writing this")
        answers = await super().commit(commits)
        lost = any(one.agent == SCHEDULER and self.loses(one) for one in commits)
        if lost and commits not in self.lost:
            self.lost.append(commits)
            raise StoreUnavailableError
        return answers


class World:
    """A troupe on virtual time, with what it has counted and logged."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        self.clock = LoopClock(asyncio.get_running_loop())
        self.store = Store(self.clock)
        self.troupe = LocalTroupe({"worker": Worker}, self.store, self.clock)
        self.client = self.troupe.client()
        self.records = records
        self._counted: Counter[str] = Counter()

    async def file(self, job_id: str, script: str) -> None:
        content = {"jobId": job_id, "script": script}
        await self.client.ask(f"worker:{job_id}", content, "start")

    async def job(self, job_id: str) -> AgentJob:
        document = await self.client.get("job", job_id)
        assert document is not None
        return AgentJob.from_json(document.body)

    async def over(self, job_id: str) -> AgentJob:
        """The job once it has ended and the scheduler has heard of it."""

        async with asyncio.timeout(600):
            while not (job := await self.job(job_id)).status.final:
                await asyncio.sleep(0.5)
        await asyncio.sleep(1)
        return job

    async def tell(self, sender: str, body: bytes) -> None:
        """Have a message in the scheduler's inbox, and heard."""
        send = Send("m1", f"acme/{sender}", SCHEDULER, body)
        await self.store.commit([Commit("acme", sends=(send,))])
        await asyncio.sleep(1)

    @property
    def figures(self) -> dict[str, float]:
        """Everything that was counted so far, by name and label."""
        assert self.troupe.scheduler is not None
        for sample in self.troupe.scheduler._meter.drain():
            self._counted[_name(sample)] += sample.value  # type: ignore[assignment]
        return {name: value for name, value in self._counted.items() if value}

    def actions(self, *names: str) -> list[logging.LogRecord]:
        return [one for one in self.records if one.__dict__.get("action") in names]


def _name(sample: Sample) -> str:
    labels = [value for _, value in sample.labels]
    return "/".join([sample.metric.name.removeprefix("troupe_") + sample.suffix, *labels])


def world(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test on virtual time with a running troupe."""

    async def main(records: list[logging.LogRecord]) -> None:
        made = World(records)
        made.troupe._random.random = lambda: 0.5  # type: ignore[method-assign]
        await made.troupe.start()
        try:
            await test(made)
        finally:
            await made.troupe.stop()

    def sync(caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "runtime")
        run(main(caplog.records))

    sync.__name__, sync.__doc__ = test.__name__, test.__doc__
    return sync


RUNS = ("runs_started", "runs_ended", "run_seconds_count", "job_retries", "jobs_dead")


def runs(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name.startswith(RUNS)}


@world
async def test_a_look_is_no_run_unless_it_goes_on(world: World) -> None:
    """A job that waits for a day would be a hundred runs that were started and never ended."""
    await world.file("job_1", "wait end")
    assert (await world.over("job_1")).status is JobStatus.COMPLETED
    assert len(world.actions("job.dispatched")) > 2
    assert runs(world.figures) == {
        "runs_started": 2,
        "runs_ended/waiting": 1, "run_seconds_count/waiting": 1,
        "runs_ended/completed": 1, "run_seconds_count/completed": 1,
    }  # fmt: skip
    assert len(world.actions("job.ended")) == len(world.actions("job.dispatched"))


@world
async def test_a_round_without_messages_is_a_round(world: World) -> None:
    """A scheduler that is slow at what is due would look as quick as ever."""
    await world.file("job_1", "fail work")
    await eventually(lambda: _is(world, JobStatus.PENDING, attempts=1))
    before = world.figures["round_seconds_count"]
    await asyncio.sleep(2)
    assert (await world.job("job_1")).status is JobStatus.RUNNING
    assert world.figures["round_seconds_count"] == before + 1
    await asyncio.sleep(90)
    # the only thing to tell meanwhile is how the queue stands
    assert world.figures["round_seconds_count"] <= before + 2


async def _is(world: World, status: JobStatus, attempts: int) -> bool:
    await asyncio.sleep(0.01)
    document = await world.client.get("job", "job_1")
    if document is None:
        return False
    job = AgentJob.from_json(document.body)
    return (job.status, job.attempts) == (status, attempts)


SCRIPTS = {
    "job_plain": "end",
    "job_tried": "fail end",
    "job_dead": "fail fail fail",
    "job_waits": "wait fail end",
}


@world
async def test_what_landed_is_counted_though_its_answer_was_lost(world: World) -> None:
    """A store that comes and goes would take runs, retries and dead letters out of the figures."""
    world.store.loses = lambda commit: bool(commit.acks or commit.sends)
    for job_id, script in SCRIPTS.items():
        await world.file(job_id, script)
    for job_id in SCRIPTS:
        await world.over(job_id)
    assert len(world.store.lost) > len(SCRIPTS)
    assert runs(world.figures) == {
        "runs_started": 1 + 2 + 3 + 3,
        "runs_ended/completed": 3, "run_seconds_count/completed": 3,
        "runs_ended/failed": 5, "run_seconds_count/failed": 5,
        "runs_ended/waiting": 1, "run_seconds_count/waiting": 1,
        "job_retries": 1 + 2 + 1,
        "jobs_dead": 1,
    }  # fmt: skip
    assert len(world.actions("job.dead")) == 1
    assert len(world.actions("job.retried")) == 4


@world
async def test_what_was_asked_is_in_the_log_though_the_answer_was_lost(world: World) -> None:
    """Nobody would know who has stopped the queue."""
    world.store.loses = lambda commit: bool(commit.acks)
    told = await world.troupe.client(HOME).ask("scheduler:main", {"by": "ann"}, "scheduler.pause")
    assert told["ok"]
    await asyncio.sleep(1)
    assert world.store.lost
    [line] = world.actions("scheduler.pause")
    assert line.__dict__["by"] == "ann"


@world
async def test_what_did_not_land_is_counted_when_it_does(world: World) -> None:
    """A start that is refused and made again would be two."""
    refused = 0
    commit = world.store.commit

    async def meddled(commits: Sequence[Commit]) -> list[Committed | Refused]:
        nonlocal refused
        starts = any("run:" in send.message_id for one in commits for send in one.sends)
        if starts and not refused:
            refused += 1
            job = await world.job("job_1")
            write = Write("job", job.id, job.to_json(), job_terms(job))
            await world.client.commit(writes=[write])
        return await commit(commits)

    world.store.commit = meddled  # type: ignore[method-assign]
    await world.file("job_1", "end")
    await world.over("job_1")
    assert refused == 1
    assert runs(world.figures) == {
        "runs_started": 1, "runs_ended/completed": 1, "run_seconds_count/completed": 1,
    }  # fmt: skip


@world
async def test_a_run_that_outlives_a_scheduler_has_its_duration(world: World) -> None:
    """The long runs, which outlive restarts, would be missing from the histogram."""
    await world.file("job_1", "work")
    await asyncio.sleep(10)
    await world.troupe.kill_scheduler()
    world.troupe.start_scheduler()
    await world.over("job_1")
    figures = world.figures
    assert figures["run_seconds_count/completed"] == figures["runs_ended/completed"] == 1
    assert 99 <= figures["run_seconds_sum/completed"] <= 101


@world
async def test_a_job_whose_start_can_not_be_written_is_given_up_in_the_figures(
    world: World,
) -> None:
    """Its dead letter would be there, and no alert."""
    world.store.unwritable = lambda commit: any("run:" in one.message_id for one in commit.sends)
    await world.file("job_1", "end")
    assert (await world.over("job_1")).status is JobStatus.FAILED
    assert runs(world.figures) == {"jobs_dead": 1}
    [dead] = world.actions("job.dead")
    assert (dead.levelname, dead.__dict__["job"]) == ("ERROR", "job_1")


@world
async def test_an_end_that_is_refused_is_no_end(world: World) -> None:
    """The end of a run that nobody knows would raise the rate of success."""
    content = {"jobId": "job_nobody", "outcome": "completed", "tookMs": 5}
    message = Message(
        message_id="m1", sender="worker:nobody", recipient="scheduler:main",
        message_type="job.ended", content=content, timestamp="2026-11-21T08:00:00.000Z",
    )  # fmt: skip
    await world.tell("worker:nobody", message.to_json())
    assert runs(world.figures) == {}
    [line] = world.actions("scheduler.refused")
    assert (line.__dict__["asked"], line.__dict__["code"]) == ("job.ended", "not_found")


@world
async def test_what_can_not_be_read_is_refused_in_the_log(world: World) -> None:
    """Somebody would be told that he was refused, and nobody else would see it."""
    await world.tell("client:ann", b"{}")
    [line] = world.actions("scheduler.refused")
    assert (line.__dict__["organization"], line.__dict__["code"]) == ("acme", "invalid_message")


@world
async def test_who_holds_an_agent_is_in_the_log_with_the_agent(world: World) -> None:
    """The line would say that somebody was stopped, and not who."""
    for verb in ("pause", "resume"):
        content = {"agentId": "worker:one", "by": "ann", "reason": "release"}
        assert (await world.client.ask("scheduler:main", content, f"agent.{verb}"))["ok"]
    await asyncio.sleep(1)
    lines = world.actions("agent.pause", "agent.resume")
    said = [(one.__dict__["action"], one.levelname, one.__dict__["agent"]) for one in lines]
    assert said == [
        ("agent.pause", "INFO", "worker:one"), ("agent.resume", "INFO", "worker:one"),
    ]  # fmt: skip


@world
async def test_an_orphan_is_queued_though_the_answer_was_lost(world: World) -> None:
    """It would hold its slot until the scheduler is started once more."""
    await world.troupe.kill_scheduler()
    job = AgentJob.new(
        id="job_1", organization_id="acme", agent_type="worker", now_ms=world.clock.now_ms(),
        status=JobStatus.RUNNING, payload={"script": "end"},
    )  # fmt: skip
    await world.client.commit(writes=[Write("job", job.id, job.to_json(), job_terms(job))])
    world.store.loses = lambda commit: any(put.key == "job_1" for put in commit.puts)
    world.troupe.start_scheduler()
    assert (await world.over("job_1")).status is JobStatus.COMPLETED
    assert world.store.lost
    assert len(world.actions("job.orphaned")) == 1
