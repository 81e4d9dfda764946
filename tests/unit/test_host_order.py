"""Messages of one sender to one recipient are handled in the order they were sent, on any host."""

from __future__ import annotations

import asyncio

import pytest

from runtime.agent import AgentState, BaseAgent
from runtime.clock import SystemClock
from runtime.hosting.order import Order
from runtime.ids import Ids
from runtime.message import Message
from runtime.store.memory import MemoryStore
from tests.troupe import LocalTroupe

X, A = "acme/relay:x", "acme/relay:a"
SOON_S = 0.1


class Relay(BaseAgent):
    """Passes texts on, and keeps those it is told."""

    kind = "relay"

    class State(AgentState):
        told: list[str] = []  # noqa: RUF012 - pydantic copies defaults

    async def receive_message(self, message: Message) -> object:
        if message.message_type == "relay":
            await self.send_message("relay:a", message.content, "told")
        elif message.message_type == "told":
            self.state.told.append(message.content["text"])
        return self.state.told


class HeldPolls(MemoryStore):
    """What polls and claims bring to `host-0` is on its way for as long as the test wants."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.let_go = asyncio.Event()
        self.let_go.set()
        self.let_claim_go = asyncio.Event()
        self.let_claim_go.set()
        self.claimed = asyncio.Event()
        """A claim has been done, and answered something."""

    async def claim(self, owner, limit, agents=None):
        claimed = await super().claim(owner, limit, agents)
        if claimed:
            self.claimed.set()
            await self.let_claim_go.wait()
        return claimed

    async def poll(self, owner, after, limit, wait_s):
        poll = await super().poll(owner, after, limit, wait_s)
        if owner.startswith("host-0/") and poll.messages:
            await self.let_go.wait()
        return poll


@pytest.fixture
async def troupe():
    troupe = await LocalTroupe({"relay": Relay}, HeldPolls()).start()
    yield troupe
    troupe.store.let_go.set()
    await troupe.stop()


def claim(host, agent: str) -> None:
    """Have a host claim an agent by name, as when it has just written to it."""
    host._claims.want(agent)


async def told(troupe, count: int) -> list[str]:
    async with asyncio.timeout(5):
        while len(found := await troupe.client().ask("relay:a", {}, "look")) < count:
            await asyncio.sleep(0)
    return found


async def test_a_sender_that_moves_does_not_overtake_itself(troupe) -> None:
    """What it sent from its first host would be handled after what it sends from the second."""
    client, store = troupe.client(), troupe.store
    await client.ask("relay:a", {}, "look")
    other = await troupe.start_host("host-1")
    claim(other, X)
    async with asyncio.timeout(5):
        while X not in other._active:
            await asyncio.sleep(0)
        store.let_go.clear()
        await client.ask("relay:x", {"text": "first"}, "relay")
        await other.drain()
        again = await client.send("relay:x", {"text": "second"}, "relay")
        claim(troupe.hosts["host-0"], X)
        await client.answer("relay:x", again)
    store.let_go.set()
    assert await told(troupe, 2) == ["first", "second"]


async def test_a_question_does_not_overtake_a_message(troupe) -> None:
    """A client that sends and then asks a host would be answered as if it had not sent."""
    client, store = troupe.client(), troupe.store
    host = troupe.hosts["host-0"]
    for agent in ("relay:a", "relay:x"):  # both are at home here
        await client.ask(agent, {}, "look")
    store.let_go.clear()
    await client.send("relay:a", {"text": "first"}, "told")
    ids = Ids(SystemClock())
    message = client.message("relay:a", {}, "look", message_id=ids.ulid())
    asking = asyncio.create_task(host.ask("acme", message.sender, message, A))
    async with asyncio.timeout(5):
        while not await store.outcome(A, message.message_id, 0.0):
            await asyncio.sleep(0)
    # The host knows that the question is accepted, and could handle it as it handles this one.
    assert await ask(troupe, X, "fence") == b"[]"
    assert not asking.done()
    store.let_go.set()
    assert await asking == b'["first"]'


class CountedPolls(MemoryStore):
    """Knows what polls have brought."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.after: list[int] = []
        self.brought: list[str] = []
        self.moments: list[float] = []
        """When a host's poll began or was answered."""

    async def poll(self, owner, after, limit, wait_s):
        self.after.append(after)
        self._note(owner)
        poll = await super().poll(owner, after, limit, wait_s)
        self._note(owner)
        self.brought += [message.message_id for message in poll.messages]
        return poll

    def _note(self, owner: str) -> None:
        if owner.startswith("host-0/"):
            self.moments.append(asyncio.get_running_loop().time())


async def ask(troupe, where: str, id: str) -> bytes:
    host = troupe.hosts["host-0"]
    _, agent = where.split("/")
    message = troupe.client().message(agent, {}, "look", message_id=id)
    async with asyncio.timeout(5):
        return await host.ask("acme", message.sender, message, where)


async def test_a_busy_host_is_not_brought_again_what_it_has(monkeypatch) -> None:
    """Every message would cross the socket twice, and the store search for it twice."""
    monkeypatch.setattr("runtime.hosting.host.POLL_EVERY_S", 1.0)
    troupe = await LocalTroupe({"relay": Relay}, CountedPolls()).start()
    await ask(troupe, A, "first")
    for number in range(50):
        await ask(troupe, A, f"m{number}")
    async with asyncio.timeout(20):
        while troupe.store.after[-1] < 50:
            await asyncio.sleep(0.01)
    assert len([id for id in troupe.store.brought if id != "first"]) <= 1
    await troupe.stop()


async def test_what_a_poll_has_brought_goes_before_the_next_poll(monkeypatch) -> None:
    """A job's first line would wait until its host has made a call, and the store answers it."""
    monkeypatch.setattr("runtime.hosting.host.POLL_SOON_S", SOON_S)
    troupe = await LocalTroupe({"relay": Relay}, CountedPolls()).start()
    await troupe.client().ask("relay:a", {}, "look")
    await asyncio.sleep(2 * SOON_S)  # a poll has waited for longer than lies between two
    troupe.store.moments.clear()
    await troupe.client().ask("relay:a", {}, "look")
    async with asyncio.timeout(5):
        while len(troupe.store.moments) < 2:
            await asyncio.sleep(0.01)
    brought_s, next_s = troupe.store.moments[:2]
    assert next_s - brought_s >= SOON_S / 2
    await troupe.stop()


async def test_what_is_sent_to_an_agent_on_its_way_here_is_brought(monkeypatch) -> None:
    """A message accepted between the store's claim and its arrival here would wait for ever."""
    store = SlowClaims()
    troupe = await LocalTroupe({"relay": Relay}, store).start()
    await ask(troupe, A, "wake")
    store.hold = X
    claim(troupe.hosts["host-0"], X)
    async with asyncio.timeout(5):
        await store.claimed.wait()
    asking = asyncio.create_task(ask(troupe, X, "late"))
    async with asyncio.timeout(5):
        while not await store.outcome(X, "late", 0.0):
            await asyncio.sleep(0)
    for number in range(5):  # what comes after it goes to an agent that lives here
        await ask(troupe, A, f"after-{number}")
    store.go_on.set()
    assert await asking == b"[]"
    await troupe.stop()


class SlowClaims(MemoryStore):
    """The answer to a claim of one agent is on its way for as long as the test wants."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.hold = ""
        self.claimed = asyncio.Event()
        self.go_on = asyncio.Event()

    async def claim(self, owner, limit, agents=None):
        found = await super().claim(owner, limit, agents)
        if any(one.agent == self.hold for one in found):
            self.claimed.set()
            await self.go_on.wait()
        return found


async def test_a_message_to_one_that_is_on_its_way_is_not_overtaken(troupe) -> None:
    """What was sent while its recipient was being claimed would come after what was sent next."""
    client, store = troupe.client(), troupe.store
    host = troupe.hosts["host-0"]
    for text in ("", "", ""):  # x is at home here
        await client.ask("relay:x", {"text": text}, "look")
    store.claimed.clear()
    store.let_claim_go.clear()
    claim(host, A)
    async with asyncio.timeout(5):
        await store.claimed.wait()
        store.let_go.clear()
        message = client.message("relay:x", {"text": "first"}, "relay")
        asking = asyncio.create_task(host.ask("acme", message.sender, message, X))
        while not await store.inbox(A, 0, 9):
            await asyncio.sleep(0)
        store.let_claim_go.set()
        while A not in host._active:
            await asyncio.sleep(0)
        message = client.message("relay:x", {"text": "second"}, "relay")
        again = asyncio.create_task(host.ask("acme", message.sender, message, X))
        # x has handled it, and a could handle what x sent as it handles this, without any poll
        while len(await store.inbox(A, 0, 9)) < 2:
            await asyncio.sleep(0)
        await ask(troupe, X, "fence")
        store.let_go.set()
        await asyncio.gather(asking, again)
    assert await told(troupe, 2) == ["first", "second"]


def test_an_answer_that_comes_late_hides_no_later_message() -> None:
    """Of two commits on their way the first may be answered last: a third would overtake."""
    order = Order()
    order.polled(5)
    order.sent("a", (8,), all_live_here=False)
    order.sent("a", (7,), all_live_here=False)
    order.polled(7)
    assert not order.sent("a", (9,), all_live_here=True)
