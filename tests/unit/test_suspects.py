"""What kills its host three times is given up; who was only there goes on."""

from __future__ import annotations

import asyncio
import json
from typing import ClassVar

import pytest

from runtime.agent import AgentState, BaseAgent
from runtime.clock import SystemClock
from runtime.errors import DeadLetterError
from runtime.hosting import suspects
from runtime.hosting.suspects import COLLECTION, Mark, first_in_line, judged
from runtime.ids import SCHEDULER
from runtime.job import AgentJob, JobResult
from runtime.message import Message
from runtime.sessions import session_of
from runtime.store.contract import DEAD_LETTERS, StoredMessage
from runtime.store.memory import MemoryStore
from tests.troupe import LocalTroupe, eventually
from tests.unit.test_jobs import until


class Fatal(BaseAgent):
    """What it is told to `kill` never ends by itself: the test takes the host away meanwhile."""

    kind = "fatal"
    begun: ClassVar[list[str]]
    slow: ClassVar[asyncio.Event]

    class State(AgentState):
        handled: int = 0

    async def receive_message(self, message: Message) -> object:
        match message.message_type:
            case "kill":
                Fatal.begun.append(message.message_id)
                await asyncio.Event().wait()
            case "slow":
                Fatal.begun.append(message.message_id)
                await Fatal.slow.wait()
            case "start":
                self.enqueue(
                    AgentJob.new(
                        id=message.content["jobId"],
                        organization_id=self.context.organization,
                        agent_type="fatal",
                        agent_id=message.content.get("agent", self.agent_id),
                        now_ms=self.context.now_ms(),
                        payload=message.content,
                    )
                )
        self.state.handled += 1
        return self.state.handled

    async def process_task(self, job) -> JobResult:
        payload = job.record.payload
        for number in range(payload["steps"]):
            await job.step(f"step-{number}", _nothing)
        if payload.get("moves"):
            await job.step(f"life-{len(Fatal.begun)}", _nothing)
            await job.progress(50, "moving")
        Fatal.begun.append(job.record.id)
        if payload["lives"] >= Fatal.begun.count(job.record.id):
            await asyncio.Event().wait()
        return JobResult(outcome="finished", summary="")


async def _nothing(_) -> None:
    return None


class Unborn(BaseAgent):
    """Its `activate` never ends by itself while it is deadly: the test takes the host away."""

    kind = "unborn"
    births: ClassVar[int]
    deadly: ClassVar[bool]

    async def activate(self) -> None:
        Unborn.births += 1
        if Unborn.deadly:
            await asyncio.Event().wait()

    async def receive_message(self, message: Message) -> object:
        return "here"


@pytest.fixture
async def troupe(monkeypatch):
    monkeypatch.setattr(suspects, "HOLD_S", 0.0)
    Fatal.begun, Fatal.slow = [], asyncio.Event()
    Unborn.births, Unborn.deadly = 0, True
    kinds = {"fatal": Fatal, "unborn": Unborn}
    local = await LocalTroupe(kinds, MemoryStore(SystemClock())).start()
    yield local
    await local.stop()


async def _begun(id: str, times: int) -> None:
    async def look() -> bool:
        return Fatal.begun.count(id) >= times

    await eventually(look)


async def _marks(troupe: LocalTroupe) -> dict[str, int]:
    """The deaths that are counted, by message id."""
    found = await troupe.store.list_documents(COLLECTION)
    return {one.key.rpartition("/")[2]: json.loads(one.body)["deaths"] for one in found}


async def _again(troupe: LocalTroupe) -> None:
    await troupe.kill_host("host-0")
    await troupe.start_host("host-0")


async def _feed(troupe: LocalTroupe, event: str) -> list[dict]:
    feed = await troupe.store.tail(0, 1_000, 0.0)
    return [json.loads(one.body) for one in feed.entries if one.event == event]


async def test_a_message_that_kills_three_hosts_is_given_up(troupe) -> None:
    """It would be claimed again for ever, and take the other agents of each host along."""
    client, store = troupe.client(), troupe.store
    await client.send("fatal:a", {}, "kill", message_id="deadly")
    await client.send("fatal:a", {}, "add", message_id="behind")
    for death in range(3):
        await _begun("deadly", death + 1)
        await _again(troupe)
    with pytest.raises(DeadLetterError, match="killed_its_host"):
        await client.ask("fatal:a", {}, "kill", message_id="deadly")
    assert await client.ask("fatal:a", {}, "add", message_id="behind") == 1
    letter = await store.get(DEAD_LETTERS, "acme/fatal:a/deadly")
    assert letter is not None
    assert json.loads(letter.body)["reason"] == "killed_its_host"
    assert Fatal.begun == ["deadly"] * 3
    assert troupe.hosts["host-0"].status()["quarantined"] == 1
    [told] = await _feed(troupe, "agent:quarantined")
    assert (told["agentId"], told["messageId"]) == ("fatal:a", "deadly")
    assert await _marks(troupe) == {}


async def test_who_was_only_there_is_not_given_up(troupe) -> None:
    """One bad message would cost all that its host was at, or what merely waits there."""
    client = troupe.client()
    idle = [f"fatal:idle{number}" for number in range(20)]
    await asyncio.gather(*(client.ask(one, {}, "add") for one in idle))
    await client.send("fatal:a", {}, "kill", message_id="deadly")
    await client.send("fatal:b", {}, "slow", message_id="there")
    await client.send("fatal:b", {}, "add", message_id="behind")
    for death in range(2):
        await _begun("deadly", death + 1)
        await _begun("there", death + 1)
        await _again(troupe)
    # both have two deaths to their name: from here on one of them runs at a time

    async def one_alone() -> bool:
        return len(Fatal.begun) == 5

    await eventually(one_alone)
    if Fatal.begun[-1] == "there":
        Fatal.slow.set()
    await _begun("deadly", 3)
    await _again(troupe)
    Fatal.slow.set()
    with pytest.raises(DeadLetterError, match="killed_its_host"):
        await client.ask("fatal:a", {}, "kill", message_id="deadly")
    assert await client.ask("fatal:b", {}, "add", message_id="behind") == 2
    assert Fatal.begun.count("there") <= 3
    assert await _marks(troupe) == {}
    letters = await troupe.store.list_documents(DEAD_LETTERS)
    assert [one.key for one in letters] == ["acme/fatal:a/deadly"]


async def test_a_host_that_dies_without_it_takes_a_death_off_it(troupe, monkeypatch) -> None:
    """On a machine where hosts die of something else whatever takes a while would be given up."""
    client = troupe.client()
    await client.send("fatal:a", {}, "slow", message_id="there")
    await _begun("there", 1)
    await _again(troupe)
    await _begun("there", 2)
    monkeypatch.setattr(suspects, "HOLD_S", 600.0)
    await _again(troupe)

    async def held() -> bool:
        born = "acme/fatal:a" in troupe.hosts["host-0"]._active
        return born and "fatal:a" not in await _marks(troupe)

    await eventually(held)
    await _again(troupe)
    await _begun("there", 3)
    assert await _marks(troupe) == {"there": 1}
    Fatal.slow.set()
    assert await client.ask("fatal:a", {}, "slow", message_id="there") == 1


async def test_a_host_that_lets_go_of_its_agents_is_no_death(troupe) -> None:
    """Each restart of a deployment would count against what was under way."""
    client = troupe.client()
    await client.send("fatal:a", {}, "slow", message_id="long")
    for life in range(4):
        await _begun("long", life + 1)
        await troupe.hosts.pop("host-0").drain()
        await troupe.start_host("host-0")
    Fatal.slow.set()
    assert await client.ask("fatal:a", {}, "slow", message_id="long") == 1
    assert await troupe.store.list_documents(COLLECTION) == []


async def test_a_run_that_kills_three_hosts_fails_for_good(troupe) -> None:
    """The job would be tried again as if it had only failed, and kill more hosts each time."""
    client, store = troupe.client(), troupe.store
    await client.ask("fatal:a", {"jobId": "job_1", "steps": 2, "lives": 99}, "start")
    for death in range(3):
        await _begun("job_1", death + 1)
        await _again(troupe)
    record = await until(store, "job_1", "failed")
    assert record.reason == "killed_its_host"
    assert record.error is not None and record.error.startswith("killed_its_host: 3 hosts")
    assert Fatal.begun == ["job_1"] * 3
    assert await store.get(DEAD_LETTERS, "job/job_1") is not None
    [told] = await _feed(troupe, "agent:quarantined")
    assert told["jobId"] == "job_1"
    assert await client.ask("fatal:a", {}, "add") == 2
    assert await _marks(troupe) == {}


async def test_a_run_that_goes_on_between_deaths_is_not_given_up(troupe) -> None:
    """A long job on machines that come and go would be given up though each life brings it on."""
    client, store = troupe.client(), troupe.store
    content = {"jobId": "job_1", "steps": 2, "lives": 5, "moves": True}
    await client.ask("fatal:a", content, "start")
    for death in range(5):
        await _begun("job_1", death + 1)
        steps = 2 + death + 1

        async def recorded(steps: int = steps) -> bool:
            return sum(one.result is not None for one in await store.steps("job_1")) >= steps

        await eventually(recorded)
        await _again(troupe)
    await until(store, "job_1", "completed")
    [session] = [
        found
        for stored in await store.history("acme/fatal:a", 0, 100)
        if (found := session_of(stored)) is not None
    ]
    assert session.status == "completed"
    assert session.interrupted is not None
    assert [one.attempt for one in session.interrupted] == [1, 2, 3, 4, 5]
    assert session.interrupted[0].started_at == session.started_at
    times = [one.ended_at for one in session.interrupted]
    assert times == sorted(times)
    assert session.ended_at is not None and times[-1] <= session.ended_at


async def _born(times: int) -> None:
    async def look() -> bool:
        return Unborn.births >= times

    await eventually(look)


async def test_an_agent_that_kills_three_hosts_with_its_birth_is_given_up(troupe) -> None:
    """Its class would be made anew for ever, and nobody on any host would get any further."""
    client, store = troupe.client(), troupe.store
    for message_id in ("first", "behind"):
        await client.send("unborn:a", {}, "hello", message_id=message_id)
    for death in range(3):
        await _born(death + 1)
        await _again(troupe)
    for message_id in ("first", "behind"):
        with pytest.raises(DeadLetterError, match="killed_its_host: 3 hosts"):
            await client.ask("unborn:a", {}, "hello", message_id=message_id)
        letter = await store.get(DEAD_LETTERS, f"acme/unborn:a/{message_id}")
        assert letter is not None
        assert json.loads(letter.body)["reason"] == "killed_its_host"
    assert Unborn.births == 3
    told = await _feed(troupe, "agent:quarantined")
    assert {one["messageId"] for one in told} == {"first", "behind"}

    async def both_are_counted() -> bool:
        return troupe.hosts["host-0"].status()["quarantined"] == 2

    await eventually(both_are_counted)
    assert await client.ask("fatal:b", {}, "add") == 1
    assert await _marks(troupe) == {}
    Unborn.deadly = False
    assert await client.ask("unborn:a", {}, "hello") == "here"


async def test_a_job_of_an_agent_that_kills_three_hosts_with_its_birth_fails_for_good(
    troupe,
) -> None:
    """It would stay running for ever, and hold its slot."""
    client, store = troupe.client(), troupe.store
    content = {"jobId": "job_1", "agent": "unborn:b", "steps": 0, "lives": 0}
    await client.ask("fatal:a", content, "start")
    for death in range(3):
        await _born(death + 1)
        await _again(troupe)
    record = await until(store, "job_1", "failed")
    assert record.error is not None and record.error.startswith("killed_its_host: 3 hosts")
    assert record.reason == "killed_its_host"
    assert record.attempts == 1
    [told] = await _feed(troupe, "agent:quarantined")
    assert told["jobId"] == "job_1"


async def _held_back(troupe, monkeypatch, hold_s: float):
    """Two hosts have died of the birth of `unborn:a`; the third holds it back so long."""
    client = troupe.client()
    await client.send("unborn:a", {}, "hello", message_id="first")
    for death in range(2):
        await _born(death + 1)
        if death:
            monkeypatch.setattr(suspects, "HOLD_S", hold_s)
        await _again(troupe)

    async def held() -> bool:
        return "acme/unborn:a" in troupe.hosts["host-0"]._unfit

    await eventually(held)
    return client


async def test_what_comes_while_an_agent_is_held_back_from_its_birth_is_handled(
    troupe, monkeypatch
) -> None:
    """It was passed over by the host that held the agent, and no poll would bring it again."""
    client = await _held_back(troupe, monkeypatch, 0.2)
    Unborn.deadly = False
    assert await client.ask("unborn:a", {}, "hello", message_id="later") == "here"
    assert await client.ask("unborn:a", {}, "hello", message_id="first") == "here"
    assert Unborn.births == 3
    assert await _marks(troupe) == {}


async def test_a_host_that_is_let_go_gives_a_held_birth_back(troupe, monkeypatch) -> None:
    """A drain would wait for half a minute, and the next host for the lease."""
    client = await _held_back(troupe, monkeypatch, 600.0)
    Unborn.deadly = False
    await troupe.hosts.pop("host-0").drain()
    await troupe.start_host("host-0")
    assert await client.ask("unborn:a", {}, "hello", message_id="first") == "here"


def test_what_is_thought_of_a_suspect() -> None:
    """A death would be counted twice, or one that it had no part in."""
    first = judged(None, 2, 0)
    assert first == Mark(1, 2)
    assert judged(first, 2, 0) is first
    assert judged(first, 3, 0).deaths == 2
    assert judged(first, 4, 0).deaths == 1  # the holder between had not begun with it
    assert judged(Mark(2, 3), 5, 0).deaths == 1  # and has died all the same
    assert judged(judged(first, 3, 0), 4, 0).is_enough
    assert judged(Mark(2, 3, 5), 4, 6).deaths == 1  # it has moved on meanwhile
    anew = judged(Mark(2, 3, incarnation="a"), 4, 0, "b")  # redis-server has died, no host
    assert (anew.deaths, anew.epoch, anew.incarnation) == (2, 4, "b")
    assert judged(anew, 5, 0, "b").is_enough


def _message(seq: int, message_type: str, sender: str = SCHEDULER) -> StoredMessage:
    body = Message(
        message_id=f"m{seq}", sender="scheduler:main", recipient="fatal:a",
        message_type=message_type, content={"jobId": f"job_{seq}"},
        timestamp="2026-11-21T08:00:00.000Z",
    ).to_json()  # fmt: skip
    return StoredMessage(seq, f"m{seq}", sender, "acme/fatal:a", body, 0)


def test_what_waits_behind_another_is_no_suspect() -> None:
    """What its last holder can't have begun with would be blamed for its end."""
    run, other = "job.run", "add"
    assert first_in_line([]) == set()
    assert first_in_line([_message(1, other), _message(2, other), _message(3, run)]) == {1}
    assert first_in_line([_message(1, run), _message(2, run), _message(3, other)]) == {1, 3}
    assert first_in_line([_message(1, run, "acme/client:x"), _message(2, other)]) == {1}
    assert first_in_line([StoredMessage(7, "m", SCHEDULER, "acme/fatal:a", b"{", 0)]) == {7}
