"""A whole Troupe in one process for tests: a store, hosts and a scheduler, no Ray."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from runtime.agent import BaseAgent
from runtime.client import Client
from runtime.clock import Clock, SystemClock
from runtime.hosting.host import Host, HostSettings
from runtime.ids import Ids
from runtime.job import AgentJob
from runtime.kinds import Factory, Kinds
from runtime.schedule.queue import Limits
from runtime.scheduler import Scheduler
from runtime.store.contract import Store
from runtime.store.memory import MemoryStore

WITHIN_S = 20.0
"""What takes longer in one process has not happened."""
T = TypeVar("T")
SETTINGS = HostSettings(lease_s=2.0, idle_s=30.0)


async def soon(what: Awaitable[T]) -> T:
    """What is awaited, or a failure instead of a test that hangs."""
    async with asyncio.timeout(WITHIN_S):
        return await what


async def eventually(look: Callable[[], Awaitable[T]]) -> T:
    """What `look` finds as soon as that is true; everybody else has a turn between two looks."""
    async with asyncio.timeout(WITHIN_S):
        while not (found := await look()):
            await asyncio.sleep(0)
        return found


def asked_job(agent: BaseAgent, job_id: str, payload: dict[str, Any], **more: Any) -> AgentJob:
    """A job for an agent's own kind, as it enqueues one in a turn."""
    own: dict[str, Any] = {
        "id": job_id,
        "organization_id": agent.context.organization,
        "agent_type": agent.kind,
        "now_ms": agent.context.now_ms(),
        "payload": payload,
    }
    return AgentJob.new(**{**own, **more})


class LocalTroupe:
    """Hosts and a scheduler over one store; each can be killed (stopped without a word)."""

    def __init__(
        self,
        factories: Mapping[str, Factory],
        store: Store | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
        settings: HostSettings = SETTINGS,
    ) -> None:
        self.clock = clock or SystemClock()
        self.ids = Ids(self.clock)
        self.store = store or MemoryStore(self.clock)
        self.hosts: dict[str, Host] = {}
        self._factories = factories
        self._limits = limits
        self._settings = settings
        self._random = random.Random(7)
        self._scheduler: asyncio.Task[None] | None = None
        self.scheduler: Scheduler | None = None

    async def start(self, hosts: int = 1) -> LocalTroupe:
        for number in range(hosts):
            await self.start_host(f"host-{number}")
        self.start_scheduler()
        return self

    async def start_host(self, name: str) -> Host:
        host = Host(
            name,
            self.store,
            Kinds(self._factories, self.store),
            self.clock,
            self.ids,
            self.random,
            self._settings,
        )
        self.hosts[name] = host
        await host.start()
        return host

    def random(self) -> float:
        """In [0, 1), the same in every run; a test may replace `_random.random`."""
        return self._random.random()

    async def kill_host(self, name: str) -> None:
        """The host is gone in the middle of what it did: nothing is committed or released."""
        host = self.hosts.pop(name)
        tasks = [*host._tasks, *host._ending]
        for activation in host._active.values():
            activation.stopped = True  # it does nothing about what ends now
            lane = activation.jobs
            run = lane._current
            tasks += [t for t in (activation.task, lane._task) if t is not None]
            tasks += [t for t in ((run._work, run._flush, *run._writes) if run else ()) if t]
        tasks += host.group.pumps
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start_scheduler(self) -> None:
        self.scheduler = Scheduler(self.store, self.clock, self.ids, self.random, self._limits)
        self._scheduler = asyncio.create_task(self.scheduler.run())

    async def kill_scheduler(self) -> None:
        assert self._scheduler is not None
        self._scheduler.cancel()
        await asyncio.gather(self._scheduler, return_exceptions=True)

    def client(self, organization: str = "acme") -> Client:
        return Client(self.store, self.clock, self.ids, organization, "test")

    async def stop(self) -> None:
        await self.kill_scheduler()
        for host in self.hosts.values():
            await host.drain()
        await self.store.close()
