"""A host that was superseded begins anew; what it had asked for before must not count."""

from __future__ import annotations

import asyncio

import pytest

from runtime.agent import AgentState, BaseAgent, DeactivationReason
from runtime.clock import SystemClock
from runtime.hosting.host import HostSettings
from runtime.message import Message
from runtime.store.memory import MemoryStore
from runtime.store.remote import RemoteStore
from runtime.store.server import StoreServer
from tests.troupe import WITHIN_S, LocalTroupe, eventually

A = "acme/counter:a"


class Counter(BaseAgent):
    kind = "counter"
    living = 0

    class State(AgentState):
        total: int = 0

    async def activate(self) -> None:
        type(self).living += 1

    async def deactivate(self, reason: DeactivationReason) -> None:
        type(self).living -= 1

    async def receive_message(self, message: Message) -> int:
        self.state.total += 1
        return self.state.total


class LateAnswers(MemoryStore):
    """Answers the first owner's calls of one method only when the test lets go of them."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.first = ""
        self.late = ""
        self.asked = asyncio.Event()
        self.let_go = asyncio.Event()

    async def _wait(self, owner: str, method: str) -> bool:
        self.first = self.first or owner
        if owner != self.first or method != self.late or self.let_go.is_set():
            return False
        self.asked.set()
        await self.let_go.wait()
        return True

    async def poll(self, owner, after, limit, wait_s):
        late = await self._wait(owner, "poll")
        return await super().poll(owner, after, limit, 0.0 if late else wait_s)

    async def claim(self, owner, limit, agents=None):
        answer = await super().claim(owner, limit, agents)
        await self._wait(owner, "claim")
        return answer


@pytest.fixture
async def troupe():
    Counter.living = 0
    troupe = LocalTroupe({"counter": Counter}, LateAnswers())
    yield troupe
    troupe.store.let_go.set()
    await troupe.stop()


def claim(host, agent: str) -> None:
    host._claims.want(agent)


async def test_a_poll_of_before_does_not_skip_what_came_since(troupe) -> None:
    """A message would wait until its agent moved: the host believes that a poll has brought it."""
    troupe.store.late = "poll"
    await troupe.start(1)
    host, client, store = troupe.hosts["host-0"], troupe.client(), troupe.store
    async with asyncio.timeout(5):
        await store.asked.wait()
        await host._begin_anew()
        claim(host, A)
        while A not in host._active:
            await asyncio.sleep(0)
        sent = await client.send("counter:a", {}, "add")
        store.let_go.set()
        assert await client.answer("counter:a", sent) == 1


async def test_a_claim_of_before_brings_nobody_to_life(troupe) -> None:
    """Two activations of one agent would live in one host, and one of them for ever."""
    troupe.store.late = "claim"
    await troupe.start(1)
    host, client, store = troupe.hosts["host-0"], troupe.client(), troupe.store
    async with asyncio.timeout(5):
        sent = await client.send("counter:a", {}, "add")
        await store.asked.wait()
        await host._begin_anew()
        store.let_go.set()
        assert await client.answer("counter:a", sent) == 1
    assert host._active[A].fence.epoch == 2
    assert Counter.living == 1


async def test_a_host_whose_connection_broke_has_its_lease_again_at_once(tmp_path) -> None:
    """Its agents would be taken from a host that lives, one after the other."""
    store = MemoryStore(SystemClock())
    served = StoreServer(store, tmp_path / "store.sock")
    await served.start()
    settings = HostSettings(lease_s=10 * WITHIN_S)
    remote = RemoteStore(tmp_path / "store.sock")
    troupe = LocalTroupe({"counter": Counter}, remote, settings=settings)
    await troupe.start(1)
    host = troupe.hosts["host-0"]
    for connection in served._connections:
        connection.transport.abort()

    async def lost() -> bool:
        return host.owner not in (await store.health()).owners

    async def back() -> bool:
        return not await lost()

    assert await eventually(lost)
    assert await eventually(back)
    await troupe.stop()
    await served.close()
    await store.close()


async def test_an_agent_that_comes_back_has_no_older_life_beside_it(troupe):
    """A fenced life would go on in the same process, and call the outside once more."""
    await troupe.start(1)
    host, client = troupe.hosts["host-0"], troupe.client()
    assert await client.ask("counter:a", {}, "add") == 1
    store = troupe.store
    await store.release(host.owner, [A])  # as when its lease had lapsed for a moment
    await store.register("thief", "thief", 10.0)
    assert len(await store.claim("thief", 1, [A])) == 1
    await store.release("thief", [A])
    assert await client.ask("counter:a", {}, "add") == 2

    async def alone() -> bool:
        return Counter.living == 1

    await eventually(alone)
    assert host.moved == 1
