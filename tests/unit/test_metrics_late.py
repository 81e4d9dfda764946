"""The lateness of schedules is that of each due time, once, whoever was there for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runtime.errors import StoreUnavailableError
from runtime.job import AgentJob, JobStatus
from runtime.jobs.dispatcher import LATER_MS
from runtime.plans.planner import EARLY_MS
from runtime.store.contract import Commit, Committed, Refused
from tests.plans import Plans, planned

MINUTE_S = 60


def late(plans: Plans) -> dict[str, float]:
    """What the lateness of schedules has come to since the last look."""
    scheduler = plans.troupe.scheduler
    assert scheduler is not None
    return {
        one.suffix: one.value
        for one in scheduler._meter.drain()
        if one.metric.name == "troupe_schedule_late_seconds" and one.suffix != "_bucket"
    }


async def decided_early(plans: Plans) -> AgentJob:
    """The first job of a schedule, before its due time has come."""
    while not (jobs := await plans.jobs()):
        await asyncio.sleep(0.05)
    [job] = jobs
    assert plans.clock.now_ms() < job.not_before_ms <= plans.clock.now_ms() + EARLY_MS
    return job


@planned
async def test_who_was_away_at_a_due_time_is_late(plans: Plans) -> None:
    """An outage that begins in the last half second would not be seen in any figure."""
    await plans.set(cron="*/10 * * * *", payload={"seconds": 0})
    await decided_early(plans)
    await plans.troupe.kill_scheduler()
    await asyncio.sleep(30)
    plans.troupe.start_scheduler()
    await asyncio.sleep(1)
    told = late(plans)
    assert told["_count"] == 1
    assert 29 <= told["_sum"] <= 30.5
    assert [one.status for one in await plans.jobs()] == [JobStatus.COMPLETED]


@planned
async def test_who_was_in_the_queue_in_time_is_not_late_at_a_restart(plans: Plans) -> None:
    """Each deployment would look like an outage as long as the longest queue."""
    await plans.set(name="long", cron="*/10 * * * *", payload={"seconds": 10 * 3600})
    while not [job for job in await plans.jobs() if job.status is JobStatus.RUNNING]:
        await asyncio.sleep(0.1)
    await plans.set(cron="5-59/10 * * * *", payload={"seconds": 0})
    await asyncio.sleep(6 * MINUTE_S)
    told = late(plans)
    assert (told["_count"], round(told["_sum"])) == (2, 0)  # of both schedules the first
    [waits] = [job for job in await plans.jobs() if job.status is JobStatus.PENDING]
    assert 0 < waits.not_before_ms < plans.clock.now_ms()  # for the agent, which has one at once
    for _ in range(2):
        await plans.troupe.kill_scheduler()
        plans.troupe.start_scheduler()
        await asyncio.sleep(1)
        assert late(plans) == {}


@planned
async def test_who_was_late_at_one_restart_is_not_at_the_next(plans: Plans) -> None:
    """A due time that nobody was there for would be counted by each scheduler that follows."""
    await plans.set(cron="*/10 * * * *", payload={"seconds": 0})
    await decided_early(plans)
    assert (await _paused(plans))["ok"]
    await plans.troupe.kill_scheduler()
    await asyncio.sleep(30)
    counts = []
    for _ in range(3):
        plans.troupe.start_scheduler()
        await asyncio.sleep(1)
        counts.append(late(plans).get("_count", 0))
        await plans.troupe.kill_scheduler()
    assert counts == [1, 0, 0]
    plans.troupe.start_scheduler()


async def _paused(plans: Plans) -> dict[str, object]:
    client = plans.troupe.client("default")
    return await client.ask("scheduler:main", {"by": "ann"}, "scheduler.pause")  # type: ignore[no-any-return]


@planned
async def test_a_wait_of_a_run_is_no_due_time(plans: Plans) -> None:
    """A job that can't even be given up, and is tried a minute later, would be two due times."""
    await plans.set(cron="*/10 * * * *", payload={"seconds": 0})
    job = await decided_early(plans)
    commit, broken = plans.store.commit, True

    async def refusing(commits: Sequence[Commit]) -> list[Committed | Refused]:
        if broken and any(put.key == job.id for one in commits for put in one.puts):
            raise ValueError("there is no writing this")
        return await commit(commits)

    plans.store.commit = refusing  # type: ignore[method-assign, assignment]
    await asyncio.sleep(1)
    assert late(plans)["_count"] == 1
    broken = False
    await asyncio.sleep(LATER_MS / 1000)
    assert [one.status for one in await plans.jobs()] == [JobStatus.COMPLETED]
    assert late(plans) == {}


@planned
async def test_a_due_time_whose_answer_was_lost_is_counted_and_in_the_log(plans: Plans) -> None:
    """With a store that comes and goes, only those that went well would be in the histogram."""
    commit, lost = plans.store.commit, list[Sequence[Commit]]()

    async def losing(commits: Sequence[Commit]) -> list[Committed | Refused]:
        answers = await commit(commits)
        about = {put.collection for one in commits for put in one.puts}
        if about & {"occurrence", "schedule"} and commits not in lost:
            lost.append(commits)
            raise StoreUnavailableError
        return answers

    plans.store.commit = losing  # type: ignore[method-assign, assignment]
    lines: list[logging.LogRecord] = []
    with listening(lines):
        await plans.set(cron="*/10 * * * *", payload={"seconds": 0})
        await plans.set(name="dear", cron="*/10 * * * *", budgetUsdPerDay=5.0)
        await asyncio.sleep(60 * MINUTE_S)
    fired = (await plans.outcomes())["fired"]
    assert len(lost) >= fired >= 12
    assert late(plans)["_count"] == fired
    said = [one.__dict__["action"] for one in lines]
    assert (said.count("schedule.set"), said.count("schedule.fired")) == (2, fired)


@contextmanager
def listening(lines: list[logging.LogRecord]) -> Iterator[None]:
    """What is logged of schedules meanwhile."""
    handler, logger = logging.Handler(), logging.getLogger("runtime.plans.logged")
    handler.emit = lines.append  # type: ignore[method-assign]
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
