"""The application behind a real server, spoken to by the command's own client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import httpx2
import pytest

from actors.commands.http import Api, connect
from runtime.keys import Role
from runtime.watching import Event
from tests.http import HttpTroupe
from tests.served import served


async def _named(stream: AsyncIterator[Event], name: str) -> Event:
    while (event := await anext(stream)).name != name:
        pass
    return event


async def test_the_commands_client_submits_lists_and_follows() -> None:
    """Would leave `troupe submit --watch` without a server that understands it."""
    api = HttpTroupe()
    token, _ = await api.key(Role.OPERATOR)
    with served(api.app) as url:
        async with connect(url, token, local=True) as http:
            troupe = Api(http)
            async with asyncio.timeout(15), aclosing(troupe.events(["monitoring"])) as stream:
                following = asyncio.create_task(_named(stream, "issue:created"))
                while not (await troupe.get("/api/health"))["streams"]:
                    await asyncio.sleep(0)
                body = {"source": "manual", "title": "It fails"}
                issue = await troupe.post("/api/issues", body, idempotency_key="k")
                event = await following
            assert event.data["issueId"] == issue["id"]
            listed = await troupe.items("/api/issues", 10, status="queued")
            assert [one["id"] for one in listed] == [issue["id"]]
            assert (await troupe.get(issue["trackingUrl"]))["status"] == "queued"
            cancelled = await troupe.post(f"/api/issues/{issue['id']}/cancel", idempotency_key="c")
            assert cancelled["accepted"] is True


async def test_a_client_that_leaves_is_noticed() -> None:
    """Would count a closed browser as an open stream until none is left."""
    api = HttpTroupe()
    token, _ = await api.key(Role.VIEWER)
    with served(api.app) as url:
        async with connect(url, token, local=True) as http:
            for _ in range(3):
                async with http.stream("GET", "/api/events") as response:
                    assert response.status_code == 200
                    await anext(response.aiter_bytes())
            async with asyncio.timeout(10):
                while (await http.get("/api/health")).json()["streams"]:
                    await asyncio.sleep(0)


@pytest.mark.parametrize("known", [True, False])
async def test_a_body_that_nobody_wants_is_not_read(known: bool) -> None:
    """Would read gigabytes from somebody without a key, or only to say that it is too much."""
    api = HttpTroupe()
    token, _ = await api.key(Role.OPERATOR)
    sent = 0

    async def large() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1_000):
            sent += 1
            yield b" " * 65_536

    with served(api.app) as url:
        async with connect(url, token if known else None, local=True) as http:
            headers = {"Content-Type": "application/json"}
            # the connection may be gone while the client still sends
            with suppress(httpx2.TransportError):
                answer = await http.post("/api/issues", content=large(), headers=headers)
                assert answer.status_code == (413 if known else 401)
    assert sent < 1_000
