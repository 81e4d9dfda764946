"""Hosts and the scheduler over a redis-server that is killed and comes back."""

from __future__ import annotations

import asyncio

import pytest

from runtime.agent import AgentState, BaseAgent
from runtime.client import Client
from runtime.jobs.seat import FencedError
from runtime.message import Message
from runtime.patience import patiently
from runtime.store.redis import RedisStore
from tests.redis_server import RedisServer
from tests.troupe import LocalTroupe


class Counter(BaseAgent):
    kind = "counter"
    role = "teller"
    handled = 0
    """Turns begun by all of them, whether or not they were committed."""

    class State(AgentState):
        total: int = 0

    async def receive_message(self, message: Message) -> object:
        Counter.handled += 1
        self.state.total += (message.content or {}).get("by", 0)
        return self.state.total


@pytest.fixture
def server(tmp_path):
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.kill()


@pytest.fixture
async def troupe(server):
    troupe = await LocalTroupe({"counter": Counter}, await RedisStore.open(server.url)).start()
    yield troupe
    await troupe.stop()


async def asked(client: Client, agent: str, by: int, id: str) -> int:
    """As a caller does: the same id until there is an answer."""
    return await patiently(client.ask, agent, {"by": by}, "add", message_id=id)


async def supervised(troupe: LocalTroupe) -> None:
    """As Ray does: a scheduler that was fenced ends, and another one begins."""
    while True:
        assert troupe._scheduler is not None
        await asyncio.wait({troupe._scheduler})
        assert isinstance(troupe._scheduler.exception(), FencedError)
        troupe.start_scheduler()


@pytest.fixture
async def supervisor(troupe):
    supervisor = asyncio.create_task(supervised(troupe))
    yield supervisor
    supervisor.cancel()
    await asyncio.gather(supervisor, return_exceptions=True)


async def test_hosts_go_on_at_once_after_redis_was_killed(server, troupe) -> None:
    """Every agent would be fenced for ever, or until the next renewal of the lease."""
    client, before = troupe.client(), Counter.handled
    async with asyncio.timeout(8):
        for kill in range(3):
            for agent in ("counter:a", "counter:b"):
                assert await asked(client, agent, 1, f"{agent}-{kill}") == kill + 1
            server.kill()
            await asyncio.to_thread(server.start)
        assert await asked(client, "counter:a", 1, "last") == 4
    assert Counter.handled - before < 40, "fenced turns were begun again and again"


async def test_the_scheduler_goes_on_after_redis_was_killed(server, troupe, supervisor) -> None:
    """No job would ever be started again."""
    client = troupe.client()
    for _ in range(3):
        async with asyncio.timeout(20):
            status = await patiently(client.ask, "scheduler:main", {}, "scheduler.status")
        assert status["state"] == "IDLE"
        server.kill()
        await asyncio.to_thread(server.start)
    assert not supervisor.done()
