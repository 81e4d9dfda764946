"""What a process knows of the load without asking the store for each request."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from runtime.client import Client, ConflictError, expect_absent
from runtime.clock import ManualClock
from runtime.console.load import FRESH_S, Gauge
from runtime.ids import Ids
from runtime.store.memory import MemoryStore

LIMIT = 8


class Counted(MemoryStore):
    """Says how often it was asked for a number."""

    counts = 0

    async def count(self, collection, organization=None, terms=()):
        self.counts += 1
        return await super().count(collection, organization, terms)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def store(clock):
    return Counted(clock)


@pytest.fixture
def client(store, clock):
    return Client(store, clock, Ids(clock), "acme")


async def add(client, count, status="queued"):
    for _ in range(count):
        write = expect_absent("issue", client.ids.new("issue"), b"{}", {"status": status})
        await client.commit(writes=[write])


async def has_room(gauge, client):
    """Whether an issue would be accepted; it is not."""
    with contextlib.suppress(ConflictError):
        async with gauge.place(client, LIMIT) as is_free:
            found = is_free
            raise ConflictError("somebody was quicker")
    return found


async def accept(gauge, client):
    """Accept an issue if there is room, as slowly as a store may; whether there was."""
    async with gauge.place(client, LIMIT) as is_free:
        if is_free:
            for _ in range(5):
                await asyncio.sleep(0)
            await add(client, 1)
    return is_free


async def test_what_was_found_is_told_again_for_a_moment_only(store, clock, client):
    """Each request would cost the store several reads, or an old number be told for ever."""
    gauge = Gauge(store, clock)
    for _ in range(5):
        assert (await gauge.load()).pending == 0
        assert await has_room(gauge, client)
    assert store.counts == 4
    await add(client, LIMIT)
    clock.advance(FRESH_S)
    assert not await has_room(gauge, client)


async def test_what_was_accepted_here_counts_at_once(store, clock, client):
    """A process would accept a second's worth of issues beyond the limit."""
    gauge = Gauge(store, clock)
    for _ in range(LIMIT):
        assert await accept(gauge, client)
    assert not await accept(gauge, client)


@pytest.mark.parametrize("waiting", [0, LIMIT - 1])
async def test_what_is_being_accepted_counts_too(store, clock, client, waiting):
    """As many as come at once would be accepted beyond the limit, whatever waits already."""
    gauge = Gauge(store, clock)
    await add(client, waiting)
    found = await asyncio.gather(*(accept(gauge, client) for _ in range(5 * LIMIT)))
    assert sum(found) == await client.count("issue", {"status": "queued"}) - waiting
    assert sum(found) == LIMIT - waiting


async def test_what_could_not_be_accepted_gives_its_place_back(store, clock, client):
    """Requests that failed would use up the room of those that come after them."""
    gauge = Gauge(store, clock)
    await add(client, LIMIT - 1)
    for _ in range(3):
        assert await has_room(gauge, client)
    assert await accept(gauge, client)


async def test_what_waits_for_something_else_than_its_turn_counts_too(store, clock, client):
    """An organization without a model could hand in issues without end."""
    gauge = Gauge(store, clock)
    await add(client, LIMIT - 1)
    await add(client, 1, "pending")
    assert not await has_room(gauge, client)


async def test_from_half_of_the_limit_on_it_is_counted_anew(store, clock, client):
    """What other processes accept would not be seen where it matters."""
    gauge = Gauge(store, clock)
    await add(client, LIMIT // 2)
    assert await has_room(gauge, client)
    await add(client, LIMIT // 2)
    assert not await has_room(gauge, client)
