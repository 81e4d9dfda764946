"""Hosts, activations and turns, over the memory store."""

from __future__ import annotations

import asyncio
import json

import pytest

from runtime.agent import AgentState, BaseAgent
from runtime.backoff import Backoff
from runtime.client import Client
from runtime.clock import SystemClock
from runtime.errors import DeadLetterError, StoreUnavailableError
from runtime.hosting.activation import DELIVERIES_MAX
from runtime.journal import fold
from runtime.message import Message
from runtime.store.contract import BATCH_MAX, SNAPSHOT_EVERY
from runtime.store.memory import MemoryStore
from tests.troupe import LocalTroupe, eventually


class Counter(BaseAgent):
    kind = "counter"
    role = "teller"

    class State(AgentState):
        total: int = 0
        seen: dict[str, int] = {}  # noqa: RUF012 - pydantic copies defaults
        told: list[str] = []  # noqa: RUF012 - pydantic copies defaults

    async def receive_message(self, message: Message) -> object:
        content = message.content or {}
        match message.message_type:
            case "add":
                self.state.total += content["by"]
                self.state.seen[message.sender] = self.state.total
                return self.state.total
            case "tell":
                await self.send_message(content["whom"], {"by": 1}, "add")
            case "tell_all":
                await self.send_message("role:teller", {"text": content["text"]}, "told")
            case "told":
                self.state.told.append(content["text"])
            case "reply":
                self.state.told.append(f"reply {message.content}")
            case "fail":
                self.state.total = -1
                raise ValueError("no")
            case "read":
                return self.state.model_dump()
        return None


@pytest.fixture
async def troupe():
    troupe = await LocalTroupe({"counter": Counter}).start()
    yield troupe
    await troupe.stop()


class HeldTurns(MemoryStore):
    """Turns are on their way to the disk for as long as the test wants."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.held = asyncio.Event()
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def commit(self, commits):
        if any(one.acks and one.agent.startswith("acme/") for one in commits):
            self.held.set()
            await self.let_go.wait()
        return await super().commit(commits)


async def test_an_answer_comes_after_the_commit() -> None:
    """A reply that precedes durability would promise what a crash takes back."""
    store = HeldTurns()
    troupe = await LocalTroupe({"counter": Counter}, store).start()
    client, host = troupe.client(), troupe.hosts["host-0"]
    for agent in ("counter:asked", "counter:sent"):
        assert await client.ask(agent, {"by": 2}, "add") == 2
    store.held.clear()
    store.let_go.clear()
    message = client.message("counter:asked", {"by": 3}, "add")
    where = "acme/counter:asked"
    asking = [asyncio.create_task(host.ask("acme", message.sender, message, where))]
    sent = await client.send("counter:sent", {"by": 3}, "add")
    asking.append(asyncio.create_task(client.answer("counter:sent", sent)))
    async with asyncio.timeout(5):
        await store.held.wait()
    for _ in range(50):  # whoever could answer has had its chance
        await asyncio.sleep(0)
    assert [task.done() for task in asking] == [False, False]
    assert len(await store.journal(where, 0, 10)) == 1
    store.let_go.set()
    async with asyncio.timeout(5):
        assert [int(answer) for answer in await asyncio.gather(*asking)] == [5, 5]
    await troupe.stop()


async def test_the_same_message_changes_the_state_once(troupe) -> None:
    """A client that repeats an unknown outcome would count twice."""
    client = troupe.client()
    for _ in range(3):
        assert await client.ask("counter:a", {"by": 2}, "add", message_id="m1") == 2
    assert (await client.ask("counter:a", {}, "read"))["total"] == 2


async def test_agents_answer_each_other(troupe) -> None:
    """A message between agents and its reply would be lost between two commits."""
    client = troupe.client()
    await client.ask("counter:a", {"whom": "counter:b"}, "tell")

    async def told() -> list[str]:
        return (await client.ask("counter:a", {}, "read"))["told"]

    assert await eventually(told) == ["reply 1"]
    assert (await client.ask("counter:b", {}, "read"))["total"] == 1


async def test_a_broadcast_reaches_everyone_of_the_role_but_its_sender(troupe) -> None:
    """A broadcast would miss members or echo."""
    client = troupe.client()
    for name in ("a", "b", "c"):
        await client.ask(f"counter:{name}", {"by": 1}, "add")
    await client.ask("counter:a", {"text": "hi"}, "tell_all")
    told = [(await client.ask(f"counter:{n}", {}, "read"))["told"] for n in ("a", "b", "c")]
    assert told == [[], ["hi"], ["hi"]]


async def test_a_failing_handler_changes_nothing_and_ends_as_a_dead_letter(troupe) -> None:
    """Half of a turn would survive its exception, or the message would block for ever."""
    troupe.hosts["host-0"].random = lambda: 0.0
    client = troupe.client()
    await client.ask("counter:a", {"by": 2}, "add")
    with pytest.raises(DeadLetterError, match="ValueError"):
        await client.ask("counter:a", {}, "fail")
    assert (await client.ask("counter:a", {}, "read"))["total"] == 2
    [letter] = await client.list("dead_letter")
    said = json.loads(letter.body)
    assert (said["error"], said["attempts"]) == ("ValueError: no", DELIVERIES_MAX)


async def test_a_snapshot_is_what_its_journal_says(troupe) -> None:
    """An agent with a long life would wake with another state than it had."""
    client = troupe.client()
    texts = [str(number) for number in range(SNAPSHOT_EVERY + 3)]
    for text in texts:
        await client.ask("counter:a", {"text": text}, "told")
    await troupe.kill_host("host-0")
    whole = await troupe.store.journal("acme/counter:a", 0, BATCH_MAX)
    await troupe.store.register("rival", "host-0", 10)
    [found] = await troupe.store.claim("rival", 1, ["acme/counter:a"])
    assert found.snapshot is not None
    assert 0 < len(found.events) < len(whole) == SNAPSHOT_EVERY + 3
    base = (json.loads(found.snapshot.body), 1)
    state = fold(base, ((one.body, 1) for one in found.events), 1, {})
    assert state == fold(None, ((one.body, 1) for one in whole), 1, {})
    assert state["told"] == texts


async def test_organizations_never_meet_in_one_agent(troupe) -> None:
    """Two tenants using the same agent id would share its state."""
    assert await troupe.client("acme").ask("counter:a", {"by": 1}, "add") == 1
    assert await troupe.client("other").ask("counter:a", {"by": 1}, "add") == 1


async def test_an_agent_goes_on_where_its_host_died(troupe) -> None:
    """State in a dead host's memory only would be lost with it."""
    client = troupe.client()
    await client.ask("counter:a", {"by": 2}, "add")
    await troupe.kill_host("host-0")
    await troupe.start_host("host-0")
    assert await client.ask("counter:a", {"by": 2}, "add") == 4
    state = await client.ask("counter:a", {}, "read")
    assert state == {"total": 4, "seen": {"client:test": 4}, "told": []}


async def test_a_stale_twin_is_refused(troupe) -> None:
    """A host that was paused while its agents moved would write over the new one."""
    client = troupe.client()
    await client.ask("counter:a", {"by": 2}, "add")
    paused = troupe.hosts["host-0"]
    twin = paused._active["acme/counter:a"]
    await troupe.start_host("host-0")  # the same name: supersedes the paused one
    await client.ask("counter:a", {"by": 2}, "add")
    twin.folded.committed["total"] = 999
    answer = await twin.write()
    assert answer.reason == "stale_epoch"
    assert (await client.ask("counter:a", {}, "read"))["total"] == 4


async def test_idle_agents_leave_memory_and_come_back(troupe) -> None:
    """Deactivation would lose state, or never happen."""
    client = troupe.client()
    await client.ask("counter:a", {"by": 2}, "add")
    host = troupe.hosts["host-0"]
    await host._deactivate(host._active["acme/counter:a"], "idle")
    assert "acme/counter:a" not in host._active
    assert await client.ask("counter:a", {"by": 2}, "add") == 4


async def test_an_unknown_kind_is_a_dead_letter_with_its_reason(troupe) -> None:
    """A message to nobody would wait for ever, or stop the host."""
    with pytest.raises(DeadLetterError, match="No agent class"):
        await troupe.client().ask("ghost:a", {}, "add")
    assert await troupe.client().ask("counter:a", {"by": 1}, "add") == 1


async def test_messages_from_everywhere_at_once_are_each_handled_once(troupe) -> None:
    """A message that overtakes another on its way to the host would be lost or handled twice."""
    await troupe.start_host("host-1")
    clients = [troupe.client() for _ in range(8)]

    async def load(number: int) -> None:
        for _ in range(25):
            await clients[number].ask(f"counter:s{number % 3}", {"whom": "counter:sum"}, "tell")
            await clients[number].send("counter:sum", {"by": 1}, "add")

    await asyncio.gather(*(load(number) for number in range(8)))
    async with asyncio.timeout(20):
        while (await clients[0].ask("counter:sum", {}, "read"))["total"] < 400:
            await asyncio.sleep(0)
    assert (await clients[0].ask("counter:sum", {}, "read"))["total"] == 400
    assert (await troupe.store.health()).refused == {}


class LosesAnswers:
    """A store whose calls are done and whose answers are lost, as when its process dies."""

    def __init__(self, store, *methods: str) -> None:
        self._store = store
        self.lose = set(methods)
        self.lost = 0

    def __getattr__(self, name: str):
        call = getattr(self._store, name)
        if name not in self.lose:
            return call

        async def loses_every_other(*args, **kwargs):
            answer = await call(*args, **kwargs)
            self.lost += 1
            if self.lost % 2:
                raise StoreUnavailableError(name)
            return answer

        return loses_every_other


@pytest.mark.parametrize("method", ["claim", "commit", "poll", "register"])
async def test_an_answer_lost_by_the_store_loses_no_agent(method) -> None:
    """A host would hold an agent without knowing it, and its messages would wait for ever."""
    clock = SystemClock()
    store = LosesAnswers(MemoryStore(clock), method)
    troupe = await LocalTroupe({"counter": Counter}, store=store).start()
    client = Client(store._store, clock, troupe.ids, "acme")
    try:
        async with asyncio.timeout(20):
            for number in range(6):
                await client.ask(f"counter:a{number % 2}", {"by": 1}, "add")
            states = [await client.ask(f"counter:a{n}", {}, "read") for n in range(2)]
            status = await client.ask("scheduler:main", {}, "scheduler.status")
        assert [state["total"] for state in states] == [3, 3]
        assert status["state"] == "IDLE"
        assert store.lost
    finally:
        await troupe.stop()


class Between:
    """A store on which something happens between `host-0`'s first claim and its answer."""

    def __init__(self, store) -> None:
        self._store = store
        self.polled = asyncio.Event()
        """A poll has brought `host-0` a message."""
        self.claimed = asyncio.Event()
        self.then = self.polled.wait
        """Awaited before the claim is answered."""
        self.last = False
        """Whether `host-0` is given nothing after its first claim."""

    def __getattr__(self, name: str):
        return getattr(self._store, name)

    async def claim(self, owner, limit, agents=None):
        if not owner.startswith("host-0/"):
            return await self._store.claim(owner, limit, agents)
        if self.claimed.is_set():
            return [] if self.last else await self._store.claim(owner, limit, agents)
        answer = await self._store.claim(owner, limit, agents)
        if answer:
            self.claimed.set()
            await self.then()
        return answer

    async def poll(self, owner, after, limit, wait_s):
        poll = await self._store.poll(owner, after, limit, wait_s)
        if poll.messages and owner.startswith("host-0/"):
            self.polled.set()  # what it brings is handed over before anybody else runs
        return poll


@pytest.fixture
async def between():
    store = Between(MemoryStore(SystemClock()))
    troupe = await LocalTroupe({"counter": Counter}, store=store).start()
    yield store, troupe
    await troupe.stop()


def claims(host, agent: str) -> None:
    """Have a host claim an agent without messages, as when another host was quicker with them."""
    host._claims.want(agent)


async def lost() -> None:
    raise StoreUnavailableError("claim")


async def test_a_message_that_overtakes_the_answer_of_a_claim_is_handled(between) -> None:
    """A message that a poll brings before its agent is live would wait for ever."""
    store, troupe = between
    host = troupe.hosts["host-0"]
    claims(host, "acme/counter:a")
    async with asyncio.timeout(5):
        await store.claimed.wait()
        assert await troupe.client().ask("counter:a", {"by": 2}, "add") == 2
    assert store.polled.is_set()
    assert host._active["acme/counter:a"].fence.epoch == 1, "it was not given up and taken again"
    assert host._claims.early == {}
    assert (await troupe.store.health()).refused == {}


async def test_an_agent_held_by_a_claim_that_was_never_answered_is_given_up(between) -> None:
    """No host would serve it: the one that holds it does not know, the others may not."""
    store, troupe = between
    store.then, store.last = lost, True
    host = troupe.hosts["host-0"]
    claims(host, "acme/counter:a")
    async with asyncio.timeout(5):
        await store.claimed.wait()
        await troupe.start_host("host-1")
        assert await troupe.client().ask("counter:a", {"by": 2}, "add") == 2
    assert "acme/counter:a" in troupe.hosts["host-1"]._active
    assert host._claims.early == {}, "what another host does is none of this one's business"


async def test_all_that_a_lost_claim_took_is_given_up(troupe) -> None:
    """With a long inbox before them, the others of an unanswered claim would be held for ever."""
    client = troupe.client()
    await troupe.kill_host("host-0")
    for _ in range(BATCH_MAX):
        await client.send("counter:a", {"by": 1}, "add")
    await client.send("counter:b", {"by": 1}, "add", message_id="behind")
    store = Between(troupe.store)
    store.then = lost
    troupe.store = store
    await troupe.start_host("host-0")
    async with asyncio.timeout(10):
        assert await client.answer("counter:b", "behind") == 1
        assert (await client.ask("counter:a", {}, "read"))["total"] == BATCH_MAX


class Fragile(Counter):
    """Can't be made at all."""

    made = 0

    def __init__(self, agent_id) -> None:
        type(self).made += 1
        raise RuntimeError("no")


async def test_an_agent_that_cannot_be_made_does_not_stop_its_host(troupe) -> None:
    """One bad constructor would end the host's loop, and with it every agent there."""
    host, client = troupe.hosts["host-0"], troupe.client()
    host.random = lambda: 0.0
    host._births._kinds._factories["fragile"] = Fragile
    async with asyncio.timeout(10):
        with pytest.raises(DeadLetterError, match="RuntimeError"):
            await client.ask("fragile:a", {}, "add")
        assert await client.ask("counter:a", {"by": 2}, "add") == 2


async def test_new_messages_do_not_hurry_an_agent_that_cannot_live(troupe) -> None:
    """Each message to a broken agent would cost a try at once, and none would ever be given up."""
    host, client = troupe.hosts["host-0"], troupe.client()
    tried = asyncio.Event()
    tries: list[int] = []

    class Fails(Counter):
        async def activate(self) -> None:
            tries.append(len(tries))
            tried.set()
            raise RuntimeError("no")

    host._births._kinds._factories["counter"] = Fails
    host.backoff = Backoff(base_s=60.0, cap_s=60.0)
    host.random = lambda: 1.0
    await client.send("counter:a", {}, "add")
    async with asyncio.timeout(5):
        await tried.wait()
        await client.send("counter:a", {}, "add", message_id="second")
        await client.send("other:a", {}, "add", message_id="known")  # its answer comes after
        with pytest.raises(DeadLetterError):
            await client.answer("other:a", "known")
        assert tries == [0]
        await host.drain()  # does not wait out the minute


async def test_a_host_whose_loop_has_ended_says_so(troupe) -> None:
    """A process that claims nothing any more would go on renewing its lease, and look well."""
    host = troupe.hosts["host-0"]

    async def broken(*_: object) -> None:
        raise ValueError("no such thing")

    watching = asyncio.create_task(host.watch())
    host.store.poll = broken
    await troupe.client().ask("counter:a", {"by": 2}, "add")  # ends the poll that is parked
    with pytest.raises(ValueError, match="no such thing"):
        await asyncio.wait_for(watching, 5)


async def test_a_state_that_cannot_be_loaded_is_tried_again_then_given_up(troupe) -> None:
    """A bad release would lose messages at once, or hold its host up for ever."""
    client = troupe.client()
    host = troupe.hosts["host-0"]
    host.random = lambda: 0.0
    await client.ask("counter:a", {"by": 2}, "add")
    await host._deactivate(host._active["acme/counter:a"], "idle")

    class Broken(Counter):
        async def activate(self) -> None:
            raise RuntimeError("no")

    host._births._kinds._factories["counter"] = Broken
    with pytest.raises(DeadLetterError, match="RuntimeError"):
        await client.ask("counter:a", {"by": 2}, "add")
    host._births._kinds._factories["counter"] = Counter
    assert await client.ask("counter:a", {"by": 2}, "add") == 4
    assert len(await client.list("dead_letter")) == 1


async def test_a_long_inbox_is_handled_to_its_end(troupe) -> None:
    """What a claim's answer has no room for would wait for ever."""
    client = troupe.client()
    await troupe.kill_host("host-0")
    for _ in range(1_100):
        await client.send("counter:a", {"by": 1}, "add")
    await troupe.start_host("host-0")
    assert (await client.ask("counter:a", {}, "read"))["total"] == 1_100


class Sleeper(BaseAgent):
    kind = "sleeper"

    async def receive_message(self, message: Message) -> str:
        if message.message_type == "sleep":
            await asyncio.Event().wait()
        return "awake"


async def test_a_handler_that_never_ends_fails_and_its_agent_goes_on(monkeypatch) -> None:
    """One handler that waits for ever would stop its agent for good."""
    monkeypatch.setattr("runtime.hosting.calling.TURN_TIMEOUT_S", 0.05)
    monkeypatch.setattr("runtime.hosting.activation.DELIVERIES_MAX", 1)
    monkeypatch.setattr("runtime.hosting.host.SWEEP_S", 0.02)
    troupe = await LocalTroupe({"sleeper": Sleeper}).start()
    client = troupe.client()
    with pytest.raises(DeadLetterError, match="longer than"):
        await client.ask("sleeper:a", {}, "sleep")
    assert await client.ask("sleeper:a", {}, "speak") == "awake"
    await troupe.stop()
