"""Races at the edges of a run that a simulation has found: its end, signals, pauses, cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from runtime.agent import AgentState, BaseAgent
from runtime.ids import SCHEDULER
from runtime.job import AgentJob, JobResult
from runtime.message import Message
from runtime.store.contract import Commit, Committed, Refused
from runtime.store.memory import MemoryStore
from tests.troupe import LocalTroupe
from tests.unit.test_jobs import until

FINAL = {"completed", "failed", "cancelled"}


class SeenStore(MemoryStore):
    """Keeps what was committed."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.accepted: list[Commit] = []

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        answers = await super().commit(commits)
        pairs = zip(commits, answers, strict=True)
        self.accepted += [one for one, answer in pairs if isinstance(answer, Committed)]
        return answers


class Runner(BaseAgent):
    """Takes one pure step and is done."""

    kind = "runner"

    class State(AgentState):
        pass

    async def receive_message(self, message: Message) -> object:
        self.enqueue(
            AgentJob.new(
                id=message.content["jobId"],
                organization_id=self.context.organization,
                agent_type="runner",
                now_ms=self.context.now_ms(),
            )
        )
        return None

    async def process_task(self, job) -> JobResult:
        await job.progress(50, "only")
        await job.step("only", self._call)
        return JobResult(outcome="finished", summary="")

    async def _call(self, _context) -> str:
        return "done"


@pytest.fixture
async def troupe():
    troupe = LocalTroupe({"runner": Runner})
    troupe = await LocalTroupe({"runner": Runner}, SeenStore(troupe.clock)).start()
    yield troupe
    await troupe.stop()


async def test_a_job_ends_in_one_commit(troupe) -> None:
    """A host killed between two would leave a completed job that runs again, and ends otherwise."""
    client = troupe.client()
    await client.ask("runner:boss", {"jobId": "job_1"}, "start")
    await until(client, "job_1", "completed")
    ends = [
        commit
        for commit in troupe.store.accepted
        for put in commit.puts
        if put.collection == "job" and AgentJob.model_validate_json(put.body).status in FINAL
    ]
    assert len(ends) == 1
    assert [ack.message_id.partition(":")[0] for ack in ends[0].acks] == ["run"]
    assert {send.recipient for send in ends[0].sends} == {SCHEDULER}
    assert "job:completed" in [event.event for event in ends[0].feed]
