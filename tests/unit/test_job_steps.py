"""What is durable when: steps that share a commit must promise what single ones do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from runtime.agent import AgentState, BaseAgent, job_terms
from runtime.client import Write
from runtime.job import AgentJob, JobResult
from runtime.jobs.decisions import CARRIED_BYTES_MAX
from runtime.message import Message
from runtime.schedule.queue import Limits
from runtime.store.contract import Commit, Committed, Refused
from runtime.store.memory import MemoryStore
from tests.troupe import LocalTroupe
from tests.unit.test_jobs import until

STEPS = 4


class WatchedStore(MemoryStore):
    """Knows the commits that were about steps, and can hold one back."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.stepping: list[tuple[list[str], list[str]]] = []
        """Keys of the intents and of the results of each."""
        self.empty = 0
        self.hold = ""
        """Commits with the intent of this step wait."""
        self.held = asyncio.Event()
        self.go_on = asyncio.Event()
        self.changed = asyncio.Condition()
        self.asked_read: list[str] = []
        """Jobs of which was read what they were asked: each run that reads anything does."""
        self.hold_asked = False
        """What is read of what a job was asked is on its way for as long as the test wants."""

    async def get(self, collection: str, key: str):
        found = await super().get(collection, key)
        if collection == "asked":
            self.asked_read.append(key)
        if collection == "asked" and self.hold_asked:
            self.held.set()
            await self.go_on.wait()
        return found

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        for commit in commits:
            intents = [intent.key for intent in commit.intents]
            if self.hold and self.hold in intents:
                self.held.set()
                await self.go_on.wait()
        answers = await super().commit(commits)
        for commit in commits:
            keys = [one.key for one in commit.intents], [one.key for one in commit.results]
            if any(keys):
                self.stepping.append(keys)
            written = (commit.acks, commit.sends, commit.puts, commit.feed, commit.retries)
            self.empty += not any((*keys, *written, commit.events, commit.buries, commit.snapshot))
        async with self.changed:
            self.changed.notify_all()
        return answers

    async def has_result(self, job: str, key: str) -> None:
        """Wait until a step's result is durable."""

        def there() -> bool:
            found = self.step(job, key)
            return found is not None and found[2]

        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(there)


class Outside:
    """What the steps call."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.durable_before: list[int] = []
        """How many results were durable when each call began."""
        self.pause_after = ""
        """The agent waits for `resume` after this step, without a step."""
        self.paused = asyncio.Event()
        self.resume = asyncio.Event()


def stepper(outside: Outside, store: WatchedStore) -> type[BaseAgent]:
    class Stepper(BaseAgent):
        kind = "stepper"

        class State(AgentState):
            pass

        async def receive_message(self, message: Message) -> None:
            if message.message_type == "note":
                await outside.resume.wait()

        async def process_task(self, job) -> JobResult:
            for number in range(STEPS):
                key = f"s{number}"
                await job.progress(number, key)
                await job.step(key, self._call(key, job.record.id), kind="external")
                if key == outside.pause_after:
                    outside.paused.set()
                    await outside.resume.wait()
            return JobResult(outcome="finished", summary="")

        def _call(self, key: str, job: str):
            async def call(_context) -> str:
                outside.calls.append(key)
                steps = await store.steps(job)
                outside.durable_before.append(sum(step.result is not None for step in steps))
                return key

            return call

    return Stepper


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
async def troupe(outside: Outside) -> AsyncIterator[LocalTroupe]:
    troupe = LocalTroupe({})
    store = WatchedStore(troupe.clock)
    troupe = LocalTroupe({"stepper": stepper(outside, store)}, store, limits=Limits(agent=2))
    await troupe.start()
    yield troupe
    await troupe.stop()


async def start(troupe: LocalTroupe, id: str, agent: str | None = None, text: str = "") -> None:
    client = troupe.client()
    job = AgentJob.new(
        id=id,
        organization_id="acme",
        agent_type="stepper",
        agent_id=agent,
        now_ms=client.clock.now_ms(),
        payload={"text": text},
    )
    write = Write("job", job.id, job.to_json(), job_terms(job))
    await client.send("scheduler:main", {"jobId": job.id}, "job.queued", writes=[write])


async def test_a_result_shares_the_commit_of_the_next_intent(troupe, outside) -> None:
    """Each step would cost two fsyncs instead of one."""
    await start(troupe, "job_1")
    await until(troupe.client(), "job_1", "completed")
    assert troupe.store.stepping == [
        (["s0"], []), (["s1"], ["s0"]), (["s2"], ["s1"]), (["s3"], ["s2"]), ([], ["s3"]),
    ]  # fmt: skip
    assert troupe.store.empty == 0


async def test_nothing_is_called_before_the_results_before_it_are_durable(troupe, outside) -> None:
    """A kill in a call would lose, and pay again for, an answer that was already there."""
    await start(troupe, "job_1")
    await until(troupe.client(), "job_1", "completed")
    assert outside.durable_before == [0, 1, 2, 3]


async def test_a_result_is_durable_though_no_step_follows(troupe, outside) -> None:
    """Work between two steps would keep a paid answer in memory alone."""
    outside.pause_after = "s1"
    await start(troupe, "job_1")
    await outside.paused.wait()
    await troupe.store.has_result("job_1", "s1")
    outside.resume.set()
    await until(troupe.client(), "job_1", "completed")
    assert outside.calls == ["s0", "s1", "s2", "s3"]


async def test_a_host_killed_between_two_steps_calls_neither_again(troupe, outside) -> None:
    """A result that was written beside the run would be lost with it."""
    outside.pause_after = "s1"
    await start(troupe, "job_1")
    await outside.paused.wait()
    await troupe.store.has_result("job_1", "s1")
    await troupe.kill_host("host-0")
    outside.pause_after = ""
    await troupe.start_host("host-0")
    await until(troupe.client(), "job_1", "completed")
    assert outside.calls == ["s0", "s1", "s2", "s3"]


async def test_a_cancel_in_the_middle_of_a_commit_loses_nothing_of_it(troupe, outside) -> None:
    """The result that the commit carried would be forgotten, and the end refused."""
    troupe.store.hold = "s2"
    await start(troupe, "job_1")
    await troupe.store.held.wait()
    client = troupe.client()
    await client.send("scheduler:main", {"jobId": "job_1"}, "job.cancel")
    # The host hears of it when its commits go on; a cancel that comes earlier is the hard case.
    troupe.hosts["host-0"]._active["acme/stepper:job_1"].jobs._current.control("job.cancel")
    troupe.store.hold = ""
    troupe.store.go_on.set()
    record = await until(client, "job_1", "cancelled")
    assert record.attempts == 1
    assert outside.calls == ["s0", "s1"]
    steps = {step.key: step.result for step in await troupe.store.steps("job_1")}
    assert steps == {"s0": b'"s0"', "s1": b'"s1"', "s2": None}
    assert troupe.hosts["host-0"].moved == 0


async def test_a_cancel_that_comes_while_a_run_is_read_is_heard(troupe, outside) -> None:
    """It would be answered ok and acknowledged, and the job go on to its end."""
    troupe.store.hold_asked = True
    await start(troupe, "job_1", text="x" * CARRIED_BYTES_MAX)  # too long to go along: it is read
    await troupe.store.held.wait()
    client = troupe.client()
    assert (await client.ask("scheduler:main", {"jobId": "job_1"}, "job.cancel"))["ok"]
    async with asyncio.timeout(5):
        while not await acknowledged(troupe, "job.cancel"):
            await asyncio.sleep(0.001)
    troupe.store.hold_asked = False
    troupe.store.go_on.set()
    await until(client, "job_1", "cancelled")
    assert outside.calls == []


async def test_a_cancel_of_a_job_that_waits_for_another_is_heard(troupe, outside) -> None:
    """Its run reads nothing when it begins: what was asked before would be forgotten."""
    outside.pause_after = "s0"
    await start(troupe, "job_1", "stepper:one")
    await outside.paused.wait()
    await start(troupe, "job_2", "stepper:one")
    client = troupe.client()
    await until(client, "job_2", "running")
    assert (await client.ask("scheduler:main", {"jobId": "job_2"}, "job.cancel"))["ok"]
    async with asyncio.timeout(5):
        while not await acknowledged(troupe, "job.cancel", "stepper:one"):
            await asyncio.sleep(0.001)
    outside.resume.set()
    await until(client, "job_1", "completed")
    await until(client, "job_2", "cancelled")
    assert outside.calls == [f"s{number}" for number in range(STEPS)]


async def test_a_job_cancelled_before_its_host_was_there_does_not_begin(troupe, outside) -> None:
    """Its run reads nothing, and what was asked of it waits behind a message of somebody else."""
    await troupe.kill_host("host-0")
    await start(troupe, "job_1")
    client = troupe.client()
    await until(client, "job_1", "running")
    await client.send("stepper:job_1", {}, "note")
    assert (await client.ask("scheduler:main", {"jobId": "job_1"}, "job.cancel"))["ok"]
    await troupe.start_host("host-0")
    await until(client, "job_1", "cancelled")
    outside.resume.set()
    assert outside.calls == []


async def test_a_first_run_reads_nothing_and_a_later_one_reads_its_steps(troupe, outside) -> None:
    """Each start would cost three reads; or a run that was cut would call its steps again."""
    outside.pause_after = "s1"
    await start(troupe, "job_1")
    await outside.paused.wait()
    await troupe.store.has_result("job_1", "s1")
    assert troupe.store.asked_read == []
    await troupe.kill_host("host-0")
    await troupe.start_host("host-0")
    outside.resume.set()
    await until(troupe.client(), "job_1", "completed")
    assert troupe.store.asked_read == ["job_1"]
    assert outside.calls == [f"s{number}" for number in range(STEPS)]


async def acknowledged(troupe: LocalTroupe, kind: str, agent: str = "stepper:job_1") -> bool:
    """Whether the agent has had a message of this type."""
    told = await troupe.store.history(f"acme/{agent}", 0, 100)
    return any(
        one.status == "processed" and Message.from_json(one.body).message_type == kind
        for one in told
    )
