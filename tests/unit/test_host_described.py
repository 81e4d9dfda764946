"""What is publicly known of an agent is written once, whatever it does first."""

from __future__ import annotations

import json

import pytest

from runtime import patience
from runtime.agent import AgentState, BaseAgent, job_terms
from runtime.client import Client, Write
from runtime.clock import ManualClock, SystemClock
from runtime.errors import StoreUnavailableError
from runtime.job import AgentJob, Job, JobResult
from runtime.message import Message
from runtime.store.contract import Document
from runtime.store.memory import MemoryStore
from runtime.store.through import Through
from tests.troupe import LocalTroupe, eventually, soon

ID = "worker:one"
LATER_S = 1.0


class Worker(BaseAgent):
    kind = "worker"

    class State(AgentState):
        turns: int = 0

    async def receive_message(self, message: Message) -> int:
        self.state.turns += 1
        return self.state.turns

    async def process_task(self, job: Job) -> JobResult:
        return JobResult(outcome="finished", summary="")


@pytest.fixture
async def troupe():
    clock = ManualClock(1_700_000_000_000)
    troupe = await LocalTroupe({"worker": Worker}, clock=clock).start()
    yield troupe
    await troupe.stop()


async def works(troupe: LocalTroupe, job_id: str) -> None:
    """A job of the agent's from its acceptance to its end."""
    client: Client = troupe.client()
    job = AgentJob.new(
        id=job_id, organization_id="acme", agent_type="worker", agent_id=ID,
        now_ms=troupe.clock.now_ms(), payload={},
    )  # fmt: skip
    write = Write("job", job.id, job.to_json(), job_terms(job))
    await client.send("scheduler:main", {"jobId": job.id}, "job.queued", writes=[write])

    async def is_completed() -> bool:
        found = await troupe.store.get("job", job_id)
        return found is not None and AgentJob.from_json(found.body).status == "completed"

    await eventually(is_completed)


async def described(troupe: LocalTroupe) -> tuple[str, int]:
    """When the agent was made, and how often its record was written."""
    found: Document | None = await troupe.store.get("agent", f"acme/{ID}")
    assert found is not None
    return json.loads(found.body)["createdAt"], found.revision


async def leaves_memory(troupe: LocalTroupe) -> None:
    host = troupe.hosts["host-0"]
    await host._deactivate(host._active[f"acme/{ID}"], "idle")
    troupe.clock.advance(LATER_S)


@pytest.mark.parametrize("begins", ["job", "turn"])
async def test_an_agent_is_made_once_however_often_it_comes_back(
    troupe: LocalTroupe, begins: str
) -> None:
    """An agent that only has jobs would be shown as made when it last came into memory."""
    await (works(troupe, "job_0") if begins == "job" else troupe.client().ask(ID, {}, "go"))
    first = await described(troupe)
    for number in range(1, 4):
        await leaves_memory(troupe)
        await works(troupe, f"job_{number}")
        assert await described(troupe) == first
    await leaves_memory(troupe)
    await troupe.client().ask(ID, {}, "go")
    assert await described(troupe) == first


async def test_a_turn_after_a_job_of_the_same_life_makes_the_agent_no_newer(
    troupe: LocalTroupe,
) -> None:
    """The first message would move the day on which an agent was made."""
    await works(troupe, "job_0")
    first = await described(troupe)
    troupe.clock.advance(LATER_S)
    assert await troupe.client().ask(ID, {}, "go") == 1
    assert await described(troupe) == first


class Silent(Through):
    """Does not answer the first few times that it is asked for an agent's record."""

    left = 5

    async def get(self, collection: str, key: str) -> Document | None:
        if collection == "agent" and self.left:
            self.left -= 1
            raise StoreUnavailableError("the connection broke")
        return await super().get(collection, key)


async def test_a_store_that_is_away_at_a_birth_is_nobodys_failure(monkeypatch) -> None:
    """What was accepted would be a dead letter that no handler has ever seen."""
    monkeypatch.setattr(patience, "CAP_S", 0.05)
    clock = SystemClock()
    store = Silent(MemoryStore(clock))
    troupe = LocalTroupe({"worker": Worker}, store, clock)
    client = troupe.client()
    await client.send(ID, {}, "add", message_id="m1")
    await store.register("other", "other", 10.0)  # it dies with the agent, before its first turn
    await store.claim("other", 1, [f"acme/{ID}"])
    await store.release("other", [f"acme/{ID}"])
    await troupe.start()
    try:
        message = await soon(store.outcome(f"acme/{ID}", "m1", 10.0))
        assert message is not None
        assert (message.status, message.attempts, store.left) == ("processed", 0, 0)
    finally:
        await troupe.stop()
