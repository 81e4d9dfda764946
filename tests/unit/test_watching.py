"""The client of events: when it comes back, and when that would be no use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from runtime import watching
from runtime.backoff import Backoff
from runtime.console import feed, ws
from runtime.store.memory import MemoryStore
from runtime.turn import feed_event
from runtime.watching import OPENED, RESET, Event, WatchRefusedError, watch
from tests.sockets import WAIT_S, Here, event, running


@pytest.fixture
async def here(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    monkeypatch.setattr(watching, "BACKOFF", Backoff(0.0, 0.0))
    async with running() as found:
        yield found


@asynccontextmanager
async def watched(
    here: Here, rooms: Sequence[str], token: str | None = None
) -> AsyncIterator[AsyncGenerator[Event]]:
    url = here.url.replace("ws://", "http://").removesuffix("/api/ws")
    token = token or (await here.api.key())[0]
    async with asyncio.timeout(WAIT_S), aclosing(watch(url, token, rooms, direct=True)) as events:
        yield events


async def refusal(here: Here, rooms: Sequence[str], token: str | None = None) -> WatchRefusedError:
    with pytest.raises(WatchRefusedError) as refused:
        async with watched(here, rooms, token) as events:
            await anext(events)
    return refused.value


@pytest.mark.parametrize(
    ("rooms", "code"),
    [
        (["review:1"], "unknown_room"),
        ([f"job:{number}" for number in range(51)], "too_many_rooms"),
        ([f"job:{number:040}" for number in range(500)], "too_large"),
    ],
)
async def test_rooms_that_can_not_be_had_end_the_watch(
    here: Here, rooms: list[str], code: str
) -> None:
    """Would come back for ever with what is refused each time."""
    assert (await refusal(here, rooms)).code == code


async def test_who_may_not_watch_is_told_why(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would come back for ever with a key that is none, or doubt one at a wrong address."""
    refused = await refusal(here, ["monitoring"], "troupe_x")
    assert (refused.status, refused.code) == (401, "unauthorized")
    monkeypatch.setattr(here, "url", here.url.replace("/api/ws", "/elsewhere/api/ws"))
    refused = await refusal(here, ["monitoring"])
    assert (refused.status, refused.code) == (404, "not_found")


async def test_a_key_that_is_revoked_ends_the_watch(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would come back for ever with it."""
    monkeypatch.setattr(ws, "RECHECK_S", 0.01)
    monkeypatch.setattr("runtime.keys.CACHE_TTL_S", 0.0)
    token, key = await here.api.key()
    async with watched(here, ["monitoring"], token) as events:
        assert (await anext(events)).name == OPENED
        await here.api.keys.revoke(key.id)
        with pytest.raises(WatchRefusedError):
            await anext(events)


async def test_who_rests_too_long_misses_nothing_and_is_told_nothing_twice(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would lose what came while it was away, or take it for new again."""
    monkeypatch.setattr(ws, "UNACKED_MAX", 3)
    monkeypatch.setattr(ws, "SLOW_S", 0.02)
    hub = here.api.app.state.console.feed
    async with watched(here, ["monitoring"]) as events:
        assert (await anext(events)).name == OPENED
        await here.publish(*(event(number) for number in range(8)))
        while hub.readers:  # it was closed
            await asyncio.sleep(0)
        found = []
        while len(found) < 8:
            told = await anext(events)
            found += [told.data["n"]] if told.name != OPENED else []
        assert found == list(range(8))


async def test_events_may_be_called_what_a_socket_says_of_itself(here: Here) -> None:
    """An agent whose events are called `refused` would end the watch, `slow` ones be missed."""
    names = ["refused", "alive", "slow", "subscribed"]
    async with watched(here, ["agent:worker:one"]) as events:
        assert (await anext(events)).name == OPENED
        await here.publish(
            *(feed_event("acme", name, {}, ("agent:worker:one",), 1) for name in names)
        )
        assert [(await anext(events)).name for _ in names] == names


async def test_a_place_that_is_void_is_told(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would show what a store that lost data has never had."""
    monkeypatch.setattr(feed, "POLL_S", 0.02)
    assert isinstance(here.api.store, MemoryStore)
    async with watched(here, ["monitoring"]) as events:
        assert (await anext(events)).name == OPENED
        here.api.store.incarnation = "restored"
        assert (await anext(events)).name == RESET
        await here.publish(event(1))
        assert (await anext(events)).cursor == "restored:1"
