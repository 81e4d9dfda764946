"""Messages of one sender to one recipient are handled in the order they were sent, on any host."""

from __future__ import annotations

import asyncio

import pytest

from runtime.agent import AgentState, BaseAgent
from runtime.clock import SystemClock
from runtime.ids import Ids
from runtime.message import Message
from runtime.store.memory import MemoryStore
from tests.troupe import LocalTroupe

X, A = "acme/relay:x", "acme/relay:a"


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
    """Messages that polls bring to `host-0` are on their way for as long as the test wants."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.let_go = asyncio.Event()
        self.let_go.set()

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
    host._claim_these[agent] = None
    host._claim_wanted.set()


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
    await client.ask("relay:a", {}, "look")
    store.let_go.clear()
    await client.send("relay:a", {"text": "first"}, "told")
    ids = Ids(SystemClock())
    message = client.message("relay:a", {}, "look", message_id=ids.ulid())
    asking = asyncio.create_task(host.ask("acme", message.sender, message, A))
    async with asyncio.timeout(5):
        while not await store.outcome(A, message.message_id, 0.0):
            await asyncio.sleep(0)
    for _ in range(20):  # the host has heard that the question is accepted, and could handle it
        await asyncio.sleep(0)
    store.let_go.set()
    assert await asking == b'["first"]'
