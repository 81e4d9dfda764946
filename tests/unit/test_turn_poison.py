"""What a handler leaves behind that can't be written: its message fails, and nobody else's."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from runtime.agent import AgentState, BaseAgent
from runtime.client import Client
from runtime.clock import Clock, SystemClock
from runtime.errors import DeadLetterError, StoreError, StoreUnavailableError
from runtime.group import GroupCommitter
from runtime.job import AgentJob, JobResult
from runtime.jobs.decisions import CARRIED_BYTES_MAX
from runtime.message import Message
from runtime.store.contract import Committed
from runtime.store.memory import MemoryStore
from runtime.store.sqlite import SqliteStore
from tests.conformance.kit import accept, send
from tests.troupe import LocalTroupe
from tests.unit.test_jobs import until

NO_TEXT = "\ud800"
"""Half of a character, which no store can write."""


@pytest.fixture(autouse=True)
def no_logs() -> Iterator[None]:
    """What these tests raise can't be sent from one process of a test run to another."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Careless(BaseAgent):
    kind = "careless"

    class State(AgentState):
        total: int = 0

    async def receive_message(self, message: Message) -> object:
        match message.message_type:
            case "unwritable":
                self.state.total = -1
                self.put("note", NO_TEXT, None)
            case "unspeakable":
                self.state.total = -1
                self.record("thing", object())
            case "mutters":
                raise ValueError(f"no {NO_TEXT}")
            case "start":
                job = AgentJob.new(
                    id=message.content["jobId"],
                    organization_id=self.context.organization,
                    agent_type="careless",
                    now_ms=self.context.now_ms(),
                    max_attempts=1,
                    payload=message.content,
                )
                self.enqueue(job)
            case "look around":
                await self.context.get("note", "k")
                await self.load_state(1)
                await self.send_message("role:careless", {}, "add")
            case "add":
                self.state.total += 1
        return self.state.total

    async def process_task(self, job) -> JobResult:
        match job.record.payload["how"]:
            case "publishes":
                await job.publish(NO_TEXT, {})
            case "answers":
                return JobResult(outcome="finished", summary=NO_TEXT)
            case "says":
                await job.progress(1, NO_TEXT)
            case "takes a step":
                await job.publish(NO_TEXT, {})
                await job.step("one", self._one, kind="external")
            case "raises":
                raise ValueError(NO_TEXT)
        return JobResult(outcome="finished", summary="")

    async def _one(self, _context) -> str:
        return "one"


@pytest.fixture
async def troupe(tmp_path):
    store = await SqliteStore.open(tmp_path / "store.db", SystemClock())
    troupe = await LocalTroupe({"careless": Careless}, store).start()
    troupe._random.random = lambda: 0.0
    troupe.hosts["host-0"].random = lambda: 0.0
    yield troupe
    await troupe.stop()


@pytest.mark.parametrize("how", ["unwritable", "unspeakable"])
async def test_what_cannot_be_written_is_the_messages_fault(troupe, how) -> None:
    """The agent would hang on it for ever, and everybody whose commit was in the same group."""
    client = troupe.client()
    async with asyncio.timeout(20):
        bad = asyncio.create_task(client.ask("careless:a", {}, how))
        others = [client.ask(f"careless:n{number}", {}, "add") for number in range(8)]
        assert await asyncio.gather(*others) == [1] * 8
        with pytest.raises(DeadLetterError):
            await bad
        assert await client.ask("careless:a", {}, "add") == 1


@pytest.mark.parametrize("how", ["publishes", "answers", "says", "takes a step", "raises"])
async def test_a_job_that_writes_what_cannot_be_written_fails(troupe, how) -> None:
    """It would hold its slot for ever, or be taken for done."""
    client = troupe.client()
    async with asyncio.timeout(20):
        await client.ask("careless:boss", {"jobId": "job_1", "how": how}, "start")
        record = await until(client, "job_1", "failed")
        assert await client.ask("careless:boss", {}, "add") == 1
    assert "Error" in record.error
    assert record.result is None


class Choosy(MemoryStore):
    """Can't write messages of one name; is away for the first call."""

    calls = 0

    async def commit(self, commits):
        self.calls += 1
        if self.calls == 1:
            raise StoreUnavailableError("away")
        if any(one.message_id == "bad" for commit in commits for one in commit.sends):
            raise StoreError("no room for this")
        return await super().commit(commits)


async def test_one_bad_commit_of_a_group_fails_alone() -> None:
    """Everybody whose commit was in the same call would wait for ever."""
    group = GroupCommitter(Choosy(SystemClock()))
    ids = ("m1", "bad", "m2")
    async with asyncio.timeout(5):
        answers = await asyncio.gather(
            *(group.commit(accept(send(id))) for id in ids), return_exceptions=True
        )
        assert [type(one) for one in answers] == [Committed, StoreError, Committed]
        assert isinstance(await group.commit(accept(send("m3"))), Committed)


class Broken(MemoryStore):
    """Answers what nobody expects: to steps of jobs, or to commits that put a message off."""

    def __init__(self, clock: Clock, what: str) -> None:
        super().__init__(clock)
        self._what = what

    async def steps(self, job_id):
        if self._what == "steps":
            raise TypeError("a list of steps, and not this")
        return await super().steps(job_id)

    async def commit(self, commits):
        if self._what == "retries" and any(commit.retries for commit in commits):
            raise StoreError("nobody is put off here")
        return await super().commit(commits)


@asynccontextmanager
async def broken(what: str) -> AsyncIterator[Client]:
    """A client of a troupe over such a store."""
    troupe = await LocalTroupe({"careless": Careless}, Broken(SystemClock(), what)).start()
    try:
        async with asyncio.timeout(20):
            yield troupe.client()
    finally:
        await troupe.stop()


async def test_a_run_that_cannot_begin_fails_and_its_agent_goes_on() -> None:
    """It would hold its slot for ever, and nobody would be told."""
    async with broken("steps") as client:
        long = {"jobId": "job_1", "how": "x" * CARRIED_BYTES_MAX}  # its record is read
        await client.ask("careless:boss", long, "start")
        assert "and not this" in (await until(client, "job_1", "failed")).error
        await client.ask("careless:boss", {"jobId": "job_2", "how": "nothing"}, "start")
        await until(client, "job_2", "completed")


async def test_a_failure_that_cannot_be_put_off_ends_as_a_dead_letter() -> None:
    """Its agent would never handle a message again, nor leave memory."""
    async with broken("retries") as client:
        with pytest.raises(DeadLetterError, match="nobody is put off"):
            await client.ask("careless:a", {}, "unspeakable")
        assert await client.ask("careless:a", {}, "add") == 1


async def test_a_reason_that_is_no_text_is_told_as_well_as_can_be(troupe) -> None:
    """An exception that quotes what it stumbled on would hang the agent that raised it."""
    async with asyncio.timeout(20):
        with pytest.raises(DeadLetterError, match="ValueError: no \\?"):
            await troupe.client().ask("careless:a", {}, "mutters")


class AwayNowAndThen(MemoryStore):
    """Does not answer every other read of each kind, the first one to begin with."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.reads: Counter[str] = Counter()

    def _read(self, kind: str) -> None:
        self.reads[kind] += 1
        if self.reads[kind] % 2:
            raise StoreUnavailableError("away")

    async def get(self, collection, key):
        self._read(collection)
        return await super().get(collection, key)

    async def journal(self, agent, after, limit):
        self._read("journal")
        return await super().journal(agent, after, limit)

    async def list_documents(self, collection, *arguments, **options):
        self._read(f"list of {collection}")
        return await super().list_documents(collection, *arguments, **options)


async def test_a_store_that_is_away_is_not_the_messages_fault() -> None:
    """An outage would use up the tries of every message that reads, and bury it."""
    store = AwayNowAndThen(SystemClock())
    troupe = await LocalTroupe({"careless": Careless}, store).start()
    client = troupe.client()
    async with asyncio.timeout(20):
        await client.ask("careless:a", {}, "add")
        await client.ask("careless:a", {}, "look around", message_id="m1")
    message = await store.outcome("acme/careless:a", "m1", 0.0)
    assert message is not None
    assert (message.status, message.attempts) == ("processed", 0)
    await troupe.stop()
