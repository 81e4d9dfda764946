"""The four Ray actors: thin shells around plain objects.

A constructor never fails (Ray would never restart the actor): it starts a
background task, and a task that ends with an error ends the process, which Ray
does restart.  The first line of each class is what the Ray dashboard shows.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import random
from collections.abc import Coroutine
from typing import Any

import msgspec

from runtime.clock import SystemClock, iso
from runtime.cluster.settings import ClusterSettings
from runtime.host import Host, HostSettings
from runtime.ids import Ids, address
from runtime.kinds import Factory, Kinds
from runtime.message import Message
from runtime.registry import Registry as RegistryCore
from runtime.schedule.queue import Limits
from runtime.scheduler import Scheduler as SchedulerCore
from runtime.store.contract import Store
from runtime.store.remote import RemoteStore
from runtime.store.server import StoreServer
from runtime.store.sqlite import SqliteStore

logger = logging.getLogger(__name__)

SWEEP_S = 30.0
"""How often expired services are removed from the store."""


def background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run an actor's work; when it fails the process ends and Ray starts it anew."""

    async def run() -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException:  # whatever it was, a fresh process reads the truth from the store
            logger.critical("an actor's work ended; its process goes with it", exc_info=True)
            os._exit(1)

    return asyncio.get_running_loop().create_task(run())


def remote_store(settings: ClusterSettings) -> Store:
    return RemoteStore(settings.directory.socket)


def load_factories(path: str) -> dict[str, Factory]:
    """Call the `module:function` that makes the factories of a deployment's agents."""
    if not path:
        return {}
    module, _, name = path.partition(":")
    factories: dict[str, Factory] = getattr(importlib.import_module(module), name)()
    return factories


class StoreActor:
    """The embedded store: the one connection to the database, served on a socket."""

    def __init__(self, settings: bytes) -> None:
        self._settings = ClusterSettings.from_json(settings)
        self._work = background(self._serve())
        self._store: SqliteStore | None = None

    async def _serve(self) -> None:
        directory = self._settings.directory
        self._store = await SqliteStore.open(directory.database, SystemClock())
        await StoreServer(self._store, directory.socket).serve()

    async def health(self) -> dict[str, Any]:
        """Durability, incarnation and counts."""
        if self._store is None:
            return {"ready": False}
        return {"ready": True, **msgspec.structs.asdict(await self._store.health())}

    async def pid(self) -> int:
        return os.getpid()


class Scheduler:
    """The queue: dispatches jobs by priority under limits. There is one."""

    def __init__(self, settings: bytes) -> None:
        configured = ClusterSettings.from_json(settings)
        clock = SystemClock()
        limits = Limits(configured.max_concurrent, configured.max_per_organization)
        self._core = SchedulerCore(
            remote_store(configured), clock, Ids(clock), random.random, limits
        )
        self._work = background(self._core.run())

    async def status(self) -> dict[str, Any]:
        """Counts and state: `{"state": "RUNNING", "running": 2, "queued": 7, ...}`."""
        return self._core.status()

    async def pid(self) -> int:
        return os.getpid()


class Registry:
    """Discovery: which services there are, by the five verbs of the registry."""

    def __init__(self, settings: bytes) -> None:
        clock = SystemClock()
        self._core = RegistryCore(remote_store(ClusterSettings.from_json(settings)), clock)
        self._work = background(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            await self._core.sweep()

    async def register_service(
        self,
        service_id: str,
        metadata: dict[str, Any],
        endpoints: dict[str, Any],
        ttl_s: float | None = None,
    ) -> Any:
        return await self._core.register_service(service_id, metadata, endpoints, ttl_s)

    async def discover_service(self, criteria: dict[str, Any]) -> Any:
        return await self._core.discover_service(criteria)

    async def update_service(
        self,
        service_id: str,
        metadata: dict[str, Any] | None = None,
        endpoints: dict[str, Any] | None = None,
    ) -> Any:
        return await self._core.update_service(service_id, metadata, endpoints)

    async def deregister_service(self, service_id: str) -> Any:
        return await self._core.deregister_service(service_id)

    async def list_services(self, filter_criteria: dict[str, Any] | None = None) -> Any:
        return await self._core.list_services(filter_criteria)

    async def pid(self) -> int:
        return os.getpid()


class AgentHost:
    """A host: many agents live in it, each with its own state and inbox."""

    def __init__(self, settings: bytes, name: str) -> None:
        configured = ClusterSettings.from_json(settings)
        store = remote_store(configured)
        self._clock = SystemClock()
        self._ids = Ids(self._clock)
        self._name = name
        self._core: Host | None = None
        self._ready = asyncio.Event()
        self._work = background(self._run(configured, store))

    async def _run(self, settings: ClusterSettings, store: Store) -> None:
        factories = load_factories(settings.agents)
        self._core = Host(
            self._name,
            store,
            Kinds(factories, store),
            self._clock,
            self._ids,
            random.random,
            HostSettings(settings.lease_s, settings.idle_s),
        )
        await self._core.start()
        self._ready.set()
        await self._core.watch()

    async def ask(
        self,
        organization: str,
        sender: str,
        recipient: str,
        message_type: str,
        content: Any,
        message_id: str | None = None,
    ) -> Any:
        """Have a message accepted and return the agent's answer; errors as `Host.ask`."""
        await self._ready.wait()
        assert self._core is not None
        message = Message(
            message_id=message_id or self._ids.ulid(),
            sender=sender,
            recipient=recipient,
            message_type=message_type,
            content=content,
            timestamp=iso(self._clock.now_ms()),
        )
        where = address(organization, recipient)
        return msgspec.json.decode(await self._core.ask(organization, sender, message, where))

    async def status(self) -> dict[str, Any]:
        """Agents in memory, running jobs, refused commits."""
        return self._core.status() if self._core is not None else {"name": self._name}

    async def drain(self) -> None:
        """Let go of every agent; running jobs go on elsewhere from their last step."""
        if self._core is not None:
            await self._core.drain()

    async def pid(self) -> int:
        return os.getpid()
