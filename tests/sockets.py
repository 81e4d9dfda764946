"""Clients of the WebSocket of events, before the application behind a real server.

async with running() as here, here.line() as line:
    await line.ask(subscribe=["monitoring"])
    await here.publish(event(1))
    assert await line.numbers(1) == [1]
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed

from runtime.console.settings import ConsoleSettings
from runtime.keys import Role
from runtime.store.contract import FeedEvent, Store
from runtime.turn import feed_event
from tests.http import HttpTroupe
from tests.served import serving

WAIT_S = 10.0


def event(number: int, organization: str = "acme", *rooms: str, text: str = "") -> FeedEvent:
    data = {"n": number, "text": text} if text else {"n": number}
    return feed_event(organization, "test:event", data, rooms, 1_700_000_000_000 + number)


class Line:
    """The client's end of one socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, **words: Any) -> None:
        await self.socket.send(json.dumps(words))

    async def hear(self) -> Any:
        async with asyncio.timeout(WAIT_S):
            return json.loads(await self.socket.recv())

    async def numbers(self, count: int) -> list[int]:
        return [(await self.hear())["data"]["n"] for _ in range(count)]

    async def ask(self, **words: Any) -> Any:
        await self.say(**words)
        return await self.hear()

    async def closed(self) -> tuple[int, str]:
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await self.hear()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code, closed.value.rcvd.reason


class Here:
    """The application behind a server in this loop."""

    def __init__(self, api: HttpTroupe, url: str) -> None:
        self.api = api
        self.url = url.replace("http", "ws") + "/api/ws"

    async def publish(self, *sent: FeedEvent) -> None:
        for one in sent:
            await self.api.door(one.organization).commit(events=[one])

    @asynccontextmanager
    async def line(
        self, token: str | None = None, role: Role = Role.VIEWER, organization: str = "acme"
    ) -> AsyncIterator[Line]:
        token = token or (await self.api.key(role, organization))[0]
        headers = {"Authorization": f"Bearer {token}"}
        async with open_socket(self.url, additional_headers=headers, proxy=None) as socket:
            yield Line(socket)


@asynccontextmanager
async def running(
    settings: ConsoleSettings | None = None, store: Store | None = None
) -> AsyncIterator[Here]:
    api = HttpTroupe(settings=settings or ConsoleSettings(), store=store)
    async with serving(api.app) as url:
        yield Here(api, url)
