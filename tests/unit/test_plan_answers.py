"""The answer to a commit of the planner is lost after it was written: it is true all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from runtime.agent import BaseAgent
from runtime.errors import StoreUnavailableError
from runtime.hosting.host import HostSettings
from runtime.job import AgentJob, Job, JobResult, JobStatus
from runtime.store.contract import Commit, Committed, Refused
from runtime.store.memory import MemoryStore
from runtime.verify.loop import LoopClock, run
from tests.troupe import LocalTroupe


class Worker(BaseAgent):
    """Its jobs do nothing."""

    kind = "worker"

    async def process_task(self, job: Job) -> JobResult:
        return JobResult(outcome="finished", summary="")


class Forgetful(MemoryStore):
    """Writes each commit with a due time's outcome, and loses the first answer to it."""

    lost = 0

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        answers = await super().commit(commits)
        puts = [put.collection for commit in commits for put in commit.puts]
        if "occurrence" in puts and not self.lost:
            self.lost += 1
            raise StoreUnavailableError("lost after")
        return answers


@pytest.mark.parametrize("schedule", [{}, {"onlyIfChanged": True, "repository": "https://git/x"}])
def test_a_run_whose_answer_was_lost_starts_all_the_same(schedule: dict[str, Any]) -> None:
    """Its job would wait in the store, and its schedule for it, until the next scheduler starts."""
    jobs = run(_run(schedule))
    assert len(jobs) == 3
    assert {job.status for job in jobs} == {JobStatus.COMPLETED}


async def _run(schedule: dict[str, Any]) -> list[AgentJob]:
    clock = LoopClock(asyncio.get_running_loop())
    store = Forgetful(clock)
    settings = HostSettings(lease_s=20.0, idle_s=30.0)
    troupe = LocalTroupe({"worker": Worker}, store, clock, None, settings)
    await troupe.start()
    client = troupe.client()
    if schedule:
        schedule = {**schedule, "overlap": "allow"}
    content = {"agentId": "worker:one", "by": "ann", "schedule": {"cron": "* * * * *", **schedule}}
    assert (await client.ask("scheduler:main", content, "schedule.set"))["ok"]
    await asyncio.sleep(200)
    assert store.lost == 1
    found = await client.list("job", limit=100, descending=False)
    await troupe.stop()
    return [AgentJob.from_json(one.body) for one in found]
