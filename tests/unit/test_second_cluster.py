"""Two clusters on one Redis, each with hosts and a scheduler of its own: one writes, nobody twice.

Names at the store carry the cluster (`runtime.cluster.nodes.owner_name`), so a
second cluster is not taken for the first one that has come back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from runtime.client import Client
from runtime.clock import SystemClock
from runtime.hosting.host import Host, HostSettings
from runtime.ids import SCHEDULER, Ids
from runtime.kinds import Kinds
from runtime.scheduler import Scheduler
from runtime.store.contract import Commit, Fence, Refused, Send
from runtime.store.redis import RedisStore
from tests.redis_server import RedisServer
from tests.unit.test_store_redis_host import Counter

LEASE_S = 10.0
AGENTS = [f"counter:{number}" for number in range(12)]
WITHIN_S = 20.0


class Cluster:
    """One host and one scheduler, by the names that a cluster gives them."""

    def __init__(self, name: str, store: RedisStore) -> None:
        self.store = store
        clock = SystemClock()
        ids = Ids(clock)
        chance = random.Random(7).random
        settings = HostSettings(lease_s=LEASE_S, idle_s=60.0)
        kinds = Kinds({"counter": Counter}, store)
        self.host = Host(f"host-0@{name}", store, kinds, clock, ids, chance, settings)
        self.scheduler = Scheduler(store, clock, ids, chance, name=f"scheduler@{name}")
        self.client = Client(store, clock, ids, "acme", name)
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.host.start()
        self.tasks = [
            asyncio.create_task(self.host.watch()), asyncio.create_task(self.scheduler.run())
        ]  # fmt: skip

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.host.drain()
        await self.store.close()


@pytest.fixture
async def clusters(tmp_path) -> AsyncIterator[list[Cluster]]:
    server = RedisServer(tmp_path / "redis").start()
    made = [Cluster(name, await RedisStore.open(server.url)) for name in ("one", "two")]
    await made[0].start()
    await made[0].client.ask("scheduler:main", {}, "scheduler.status", wait_s=WITHIN_S)
    await made[1].start()
    yield made
    for cluster in made:
        await cluster.stop()
    server.kill()


async def test_two_clusters_on_one_store_change_each_state_once(clusters: list[Cluster]) -> None:
    """Two clusters that an operator started by mistake would pay, and write, everything twice."""
    asks = [
        cluster.client.ask(agent, {"by": 1}, "add", wait_s=WITHIN_S)
        for _ in range(5)
        for agent in AGENTS
        for cluster in clusters
    ]
    await asyncio.gather(*asks)
    for agent in AGENTS:
        told = await clusters[0].client.ask(agent, {"by": 0}, "add", wait_s=WITHIN_S)
        assert (agent, told) == (agent, 10)
        journal = await clusters[1].store.journal(f"acme/{agent}", 0, 100)
        assert [event.version for event in journal] == list(range(1, len(journal) + 1))
    held = [cluster.host.status()["agents"] for cluster in clusters]
    assert sum(held) == len(AGENTS), "an agent lives in both"


async def test_there_is_one_scheduler_while_the_first_one_lives(clusters: list[Cluster]) -> None:
    """Two queues would start every job twice, each within its own limits."""
    second = clusters[1]
    for cluster in clusters:
        told = await cluster.client.ask("scheduler:main", {}, "scheduler.status", wait_s=WITHIN_S)
        assert told["state"] == "IDLE"
    incarnation = await second.store.register("probe/1", "probe", 60.0)
    assert await second.store.claim("probe/1", 1, [SCHEDULER]) == [], "nobody holds it"
    send = Send("m", SCHEDULER, "acme/counter:0", b"{}")
    late = Commit("system", SCHEDULER, Fence(incarnation, 99), sends=(send,))
    [answer] = await second.store.commit([late])
    assert isinstance(answer, Refused) and answer.reason == "stale_epoch"


@pytest.mark.slow  # the first scheduler's lease is ten seconds
async def test_the_second_goes_on_with_what_the_first_has_left(clusters: list[Cluster]) -> None:
    """A second cluster that was refused for good would be no way to replace the first."""
    first, second = clusters
    await asyncio.gather(*(first.client.ask(agent, {"by": 1}, "add") for agent in AGENTS))
    for task in first.tasks:
        task.cancel()
    await asyncio.gather(*first.tasks, return_exceptions=True)
    await first.host.drain()
    told = [await second.client.ask(agent, {"by": 1}, "add", wait_s=WITHIN_S) for agent in AGENTS]
    assert told == [2] * len(AGENTS)
    status = await second.client.ask("scheduler:main", {}, "scheduler.status", wait_s=WITHIN_S)
    assert status["state"] == "IDLE"
