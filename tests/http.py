"""HTTP without a socket: the application over a store, clients with keys, a stream reader.

api = HttpTroupe()
ann = await api.client(Role.OPERATOR)
response = await ann.post("/api/issues", json={...})
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from actors.intake.routes import routes
from actors.intake.settings import IntakeSettings
from actors.verification import world
from actors.verification.world import PATCH, World
from runtime.client import Client
from runtime.clock import Clock, SystemClock
from runtime.console.app import create_app
from runtime.console.settings import ConsoleSettings
from runtime.ids import Ids
from runtime.keys import Key, Keys, Role
from runtime.store.contract import Commit, Committed, Document, Refused, Store
from runtime.store.memory import MemoryStore

__all__ = ["ORGANIZATION", "PATCH", "HttpTroupe", "Stream", "World", "Yielding", "populate"]

ORGANIZATION = "acme"
STREAM_WAIT_S = 5.0
"""A test that waits longer for a stream has failed."""
QUICK = ConsoleSettings(command_wait_s=0.05, keep_alive_s=0.05)


class Yielding(MemoryStore):
    """Lets others run before each call, as a store behind a socket does; races are real."""

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        await asyncio.sleep(0)
        return await super().commit(commits)

    async def get(self, collection: str, key: str) -> Document | None:
        await asyncio.sleep(0)
        return await super().get(collection, key)


class HttpTroupe:
    """The application and what is behind it."""

    def __init__(
        self,
        store: Store | None = None,
        clock: Clock | None = None,
        settings: ConsoleSettings = QUICK,
        roots: Sequence[Path] = (),
    ) -> None:
        self.clock = clock or SystemClock()
        self.store = store or Yielding(self.clock)
        self.ids = Ids(self.clock)
        self.keys = Keys(self.store, self.clock)
        intake = routes(IntakeSettings(repository_roots=tuple(roots)))
        self.app = create_app(self.store, self.clock, self.ids, intake, settings)

    async def key(
        self, role: Role = Role.OPERATOR, organization: str = ORGANIZATION, name: str = "ann"
    ) -> tuple[str, Key]:
        return await self.keys.create(organization, role, name)

    async def client(
        self, role: Role = Role.OPERATOR, organization: str = ORGANIZATION, name: str = "ann"
    ) -> httpx2.AsyncClient:
        token, _ = await self.key(role, organization, name)
        return self.with_token(token)

    def with_token(self, token: str | None) -> httpx2.AsyncClient:
        """A client; errors of the application come back as answers, as over a socket."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url="http://troupe", headers=headers)

    def door(self, organization: str = ORGANIZATION) -> Client:
        """The organization's way to the store, as agents' writes would come."""
        return Client(self.store, self.clock, self.ids, organization, "test")

    @asynccontextmanager
    async def stream(self, url: str, token: str, **headers: str) -> AsyncIterator[Stream]:
        """An open event stream; disconnects at the end."""
        stream = Stream()
        task = asyncio.create_task(
            self.app(_scope(url, token, headers), stream.receive, stream.send)
        )
        try:
            await stream.started()
            yield stream
        finally:
            stream.gone.set()
            async with asyncio.timeout(STREAM_WAIT_S):
                await asyncio.gather(task, return_exceptions=True)


def _scope(url: str, token: str, headers: dict[str, str]) -> dict[str, Any]:
    parts = urlsplit(url)
    sent = {"authorization": f"Bearer {token}", **headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(k.replace("_", "-").lower().encode(), v.encode()) for k, v in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("troupe", 80),
    }


@dataclass
class Sent:
    """One block of an event stream."""

    event: str = ""
    id: str = ""
    data: Any = None
    comment: str = ""


@dataclass
class Stream:
    """The client's end of one stream."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _blocks: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _start: asyncio.Event = field(default_factory=asyncio.Event)
    _rest: str = ""
    _asked: bool = False

    async def receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            self._start.set()
            return
        *blocks, self._rest = (self._rest + message.get("body", b"").decode()).split("\n\n")
        for block in blocks:
            self._blocks.put_nowait(block)
        if not message.get("more_body"):
            self.ended.set()

    async def started(self) -> None:
        async with asyncio.timeout(STREAM_WAIT_S):
            await self._start.wait()

    async def block(self) -> Sent:
        """The next block, of whatever kind."""
        async with asyncio.timeout(STREAM_WAIT_S):
            lines = (await self._blocks.get()).splitlines()
        sent = Sent()
        for line in lines:
            name, _, value = line.partition(": ")
            match name:
                case "event":
                    sent.event = value
                case "id":
                    sent.id = value
                case "data":
                    sent.data = json.loads(value)
                case "":
                    sent.comment = value
        return sent

    async def event(self) -> Sent:
        """The next block that is an event."""
        async with asyncio.timeout(STREAM_WAIT_S):  # comments alone keep a stream alive for ever
            while not (sent := await self.block()).event:
                pass
        return sent


async def populate(api: HttpTroupe, organization: str = ORGANIZATION) -> World:
    """An organization with an issue in review, its job, and what belongs to them."""
    return await world.populate(api.door(organization))
