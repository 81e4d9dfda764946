"""The three kinds of Ray actor: thin shells around plain objects.

A constructor never fails (Ray would never restart the actor): it starts a
background task that makes the object, and a task that ends with an error ends
the process, which Ray does restart.  Methods wait until the object is there.
The first line of each class is what the Ray dashboard shows.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import random
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from runtime import logs
from runtime.backoff import Backoff
from runtime.clock import Clock, SystemClock
from runtime.cluster import metering, nodes, pool, stores
from runtime.cluster.embedded import Embedded
from runtime.cluster.settings import ClusterSettings
from runtime.collector import relax
from runtime.hosting.host import Host, HostSettings
from runtime.ids import Ids, address
from runtime.kinds import Factory, Kinds
from runtime.message import Message
from runtime.metrics import Meter
from runtime.registry import COLLECTION as SERVICES
from runtime.registry import Registry as RegistryCore
from runtime.retention import UpkeepStore
from runtime.schedule.queue import Limits
from runtime.scheduler import Scheduler as SchedulerCore
from runtime.store.contract import Store

logger = logging.getLogger(__name__)

Core = TypeVar("Core")

SWEEP_S: Final = 30.0
"""How often expired services are removed from the store."""
NODE_LOOK_S: Final = 1.0
"""How often a host asks whether its node is to go away."""


def load_factories(path: str) -> dict[str, Factory]:
    """Call the `module:function` that makes the factories of a deployment's agents."""
    if not path:
        return {}
    module, _, name = path.partition(":")
    factories: dict[str, Factory] = getattr(importlib.import_module(module), name)()
    return factories


def scheduler_of(
    settings: ClusterSettings, store: Store, clock: Clock, name: str, meter: Meter | None = None
) -> SchedulerCore:
    """The scheduler as the operator wants it."""
    limits = Limits(
        settings.max_concurrent,
        settings.max_per_organization,
        repository=settings.max_per_repository,
        key=settings.max_per_key,
    )
    backoff = Backoff(settings.backoff_base_ms / 1000, settings.backoff_max_ms / 1000)
    return SchedulerCore(
        store, clock, Ids(clock), random.random, limits, backoff, name, meter,
        attempts_max=settings.max_retries + 1, check_s=settings.check_interval_ms / 1000,
    )  # fmt: skip


class Shell(Generic[Core]):
    """What the three have in common: an object that is made, and works, in the background."""

    def __init__(self, settings: bytes) -> None:
        self._settings = ClusterSettings.from_json(settings)
        logs.configure(self._settings.log_level)
        self._clock = SystemClock()
        self._ids = Ids(self._clock)
        loop = asyncio.get_running_loop()
        self._made: asyncio.Future[Core] = loop.create_future()
        self._work = loop.create_task(self._run_or_die())

    async def work(self) -> None:
        """Make the object, hand it to `made`, and do its work for ever."""
        raise NotImplementedError

    def made(self, core: Core) -> Core:
        """Hand it over; one that is made later takes its place."""
        relax()
        if self._made.done():
            self._made = asyncio.get_running_loop().create_future()
        self._made.set_result(core)
        return core

    async def core(self) -> Core:
        """The object, once it is there."""
        return await asyncio.shield(self._made)

    async def _run_or_die(self) -> None:
        try:
            await self.work()
        except asyncio.CancelledError:
            raise
        except BaseException:  # whatever it was, a fresh process reads the truth from the store
            told = "an actor's work ended; its process goes with it"
            logger.critical(told, exc_info=True, extra={"action": "actor.ended"})
            os._exit(1)

    async def pid(self) -> int:
        return os.getpid()


class Scheduler(Shell[SchedulerCore]):
    """The queue: dispatches jobs by priority under limits; keeps the embedded store."""

    def __init__(self, settings: bytes) -> None:
        super().__init__(settings)
        self._embedded = Embedded(self._settings, self._clock)

    async def work(self) -> None:
        if self._settings.store:
            await self._schedule(stores.client(self._settings))
        else:
            await self._embedded.run(self._schedule)

    async def _schedule(self, store: Store) -> None:
        settings, meter, name = self._settings, Meter(), nodes.owner_name("scheduler")
        core = self.made(scheduler_of(settings, store, self._clock, name, meter))

        async def look() -> None:
            core.measure()

        async with asyncio.TaskGroup() as duties:
            duties.create_task(core.run())
            duties.create_task(pool.keep(settings, AgentHost, core.status))
            duties.create_task(metering.export(meter, look))

    async def status(self) -> dict[str, Any]:
        """Counts and state: `{"state": "RUNNING", "running": 2, "queued": 7, ...}`."""
        return (await self.core()).status()

    async def answer(self, method: str, payload: bytes) -> bytes:
        """A call of the embedded store from another node; see `runtime.store.wire`."""
        return await self._embedded.answer(method, payload)


class Registry(Shell[RegistryCore]):
    """Discovery: which services there are, by the five verbs of the registry."""

    def __init__(self, settings: bytes) -> None:
        super().__init__(settings)
        self._meter = Meter()

    async def work(self) -> None:
        store = stores.client(self._settings)

        async def look() -> None:
            self._meter.set("troupe_registry_services", await store.count(SERVICES))

        async with asyncio.TaskGroup() as duties:
            duties.create_task(self._sweep(self.made(RegistryCore(store, self._clock))))
            duties.create_task(metering.export(self._meter, look))
            if self._settings.store:  # it has no process of its own, where this would be at home
                forgetting = stores.retention(self._settings, cast(UpkeepStore, store), self._clock)
                duties.create_task(forgetting.run())

    async def _called(self, verb: str) -> RegistryCore:
        self._meter.count("troupe_registry_calls", label=verb)
        return await self.core()

    async def _sweep(self, core: RegistryCore) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await core.sweep()

    async def register_service(
        self,
        service_id: str,
        metadata: dict[str, Any],
        endpoints: dict[str, Any],
        ttl_s: float | None = None,
    ) -> Any:
        core = await self._called("register")
        return await core.register_service(service_id, metadata, endpoints, ttl_s)

    async def discover_service(self, criteria: dict[str, Any]) -> Any:
        return await (await self._called("discover")).discover_service(criteria)

    async def update_service(
        self,
        service_id: str,
        metadata: dict[str, Any] | None = None,
        endpoints: dict[str, Any] | None = None,
    ) -> Any:
        return await (await self._called("update")).update_service(service_id, metadata, endpoints)

    async def deregister_service(self, service_id: str) -> Any:
        return await (await self._called("deregister")).deregister_service(service_id)

    async def list_services(self, filter_criteria: dict[str, Any] | None = None) -> Any:
        return await (await self._called("list")).list_services(filter_criteria)


class AgentHost(Shell[Host]):
    """A host: many agents live in it, each with its own state and inbox."""

    def __init__(self, settings: bytes, name: str) -> None:
        super().__init__(settings)
        self._name = name

    def __repr__(self) -> str:
        """How Ray's dashboard and its log lines call this host."""
        return f"AgentHost({self._name})"

    async def work(self) -> None:
        settings = self._settings
        store = stores.client(settings)
        core = Host(
            nodes.owner_name(self._name),
            store,
            Kinds(load_factories(settings.agents), store),
            self._clock,
            self._ids,
            random.random,
            HostSettings(settings.lease_s, settings.idle_s),
        )
        await core.start()
        self.made(core)
        meter, quarantined = Meter(), 0

        async def look() -> None:
            nonlocal quarantined
            status: dict[str, Any] = core.status()
            meter.count("troupe_quarantined", status["quarantined"] - quarantined)
            quarantined = status["quarantined"]
            meter.set("troupe_agents", status["agents"], self._name)
            meter.set("troupe_host_jobs", len(status["jobs"]), self._name)

        await asyncio.gather(
            core.watch(), self._leave_with_the_node(), metering.export(meter, look)
        )

    async def _leave_with_the_node(self) -> None:
        """Move away from a node that is to be emptied, before it takes the agents with it."""
        while True:
            await asyncio.sleep(NODE_LOOK_S)
            if await asyncio.to_thread(nodes.is_draining):
                break
        logger.warning("host %s leaves its node", self._name, extra={"action": "host.moving"})
        await self.drain()
        nodes.move_this_actor()

    async def ask(self, organization: str, body: bytes) -> Any:
        """Have a message accepted and return the agent's answer; errors as `Host.ask`.

        Args:
            body: the message, as JSON: Ray takes 0.3 ms longer for its parts.
        """
        core = await self.core()
        message = Message.from_json(body)
        where = address(organization, message.recipient)
        return msgspec.json.decode(await core.ask(organization, message.sender, message, where))

    async def living(self, organization: str, agents: list[str]) -> list[str]:
        """Which of these agents live here now."""
        core = await self.core()
        return [agent for agent in agents if core.lives(address(organization, agent))]

    async def status(self) -> dict[str, Any]:
        """Agents in memory, running jobs, refused commits."""
        if not self._made.done():
            return {"name": self._name, "jobs": []}
        return {**self._made.result().status(), "node": nodes.own_node()}

    async def drain(self) -> None:
        """Let go of every agent; running jobs go on elsewhere from their last step."""
        if self._made.done():
            await self._made.result().drain()
