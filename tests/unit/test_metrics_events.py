"""The events of jobs have what the manual's table says, each of them."""

from __future__ import annotations

import asyncio
import json
import re

from runtime.ids import HOME
from runtime.job import JobStatus
from tests.plans import Plans, planned
from tests.unit.test_metrics_counted import World, world
from tests.unit.test_metrics_docs import section


def rows() -> dict[str, list[set[str]]]:
    """Event -> the members of its data, of each row that has it."""
    found: dict[str, list[set[str]]] = {}
    for cell, data in re.findall(
        r"^\| (`[^|]+`) \| ([^|]+) \|", section("Public events"), re.MULTILINE
    ):
        for event in re.findall(r"`([^`]+)`", cell):
            found.setdefault(event, []).append(set(re.findall(r"\w+", data.partition(":")[0])))
    return found


async def told(target: World | Plans) -> dict[str, list[set[str]]]:
    """Event -> the members of the data of each that was published."""
    feed = await target.client.store.tail(0, 1_000, 0)
    found: dict[str, list[set[str]]] = {}
    for entry in feed.entries:
        members = set(json.loads(entry.body)) - {"timestamp"}
        found.setdefault(entry.event, []).append(members)
    return found


async def all_as_told(target: World | Plans, *events: str) -> None:
    published, table = await told(target), rows()
    assert set(events) <= published.keys()
    for event in events:
        for members in published[event]:
            assert any(is_of(row, members) for row in table[event]), (event, members)


def is_of(row: set[str], members: set[str]) -> bool:
    """A schedule's event names a job only if there is one."""
    optional = {"jobId"} if "schedule" in row else set()
    return row - optional <= members <= row


@world
async def test_the_events_of_jobs_are_as_in_the_table(world: World) -> None:
    """A client would look for a member that is not there, as `error` once was not."""
    for job_id, script in (("job_1", "wait fail end"), ("job_2", "fail fail fail")):
        await world.file(job_id, script)
        await world.over(job_id)
    retry = {"jobId": "job_2", "by": "ann"}
    assert (await world.client.ask("scheduler:main", retry, "job.retry"))["ok"]
    assert (await world.over("job_2")).status is JobStatus.FAILED
    await world.file("job_3", "work")
    await asyncio.sleep(1)
    assert (await world.client.ask("scheduler:main", {"jobId": "job_3"}, "job.cancel"))["ok"]
    await world.over("job_3")
    await world.troupe.client(HOME).ask("scheduler:main", {"by": "ann"}, "scheduler.pause")
    await world.file("job_4", "end")
    for verb in ("pause", "resume"):
        content = {"jobId": "job_4", "by": "ann"}
        assert (await world.client.ask("scheduler:main", content, f"job.{verb}"))["ok"]
    for verb in ("pause", "resume"):
        content = {"agentId": "worker:one", "by": "ann"}
        assert (await world.client.ask("scheduler:main", content, f"agent.{verb}"))["ok"]
    ends = ("completed", "failed", "cancelled", "paused", "resumed", "waiting", "retried")
    jobs = [f"job:{end}" for end in ("started", *ends)]
    agents = [f"agent:{end}" for end in ("started", "completed", "failed", "paused", "resumed")]
    await all_as_told(world, *jobs, *agents, "scheduler:status")


@planned
async def test_the_events_of_schedules_are_as_in_the_table(plans: Plans) -> None:
    """A client would look for a member that is not there."""
    await plans.set(cron="*/10 * * * *", payload={"fails": True}, maxAttempts=1)
    await asyncio.sleep(700)
    assert (await plans.ask("resume"))["ok"]
    assert (await plans.ask("pause"))["ok"]
    assert (await plans.ask("delete", name="default"))["ok"]
    events = ("set", "error", "deleted")
    told_of = [f"schedule:{event}" for event in events]
    await all_as_told(plans, *told_of, "job:failed", "agent:failed", "agent:resumed")
