"""What a process knows of the load without asking the store for each request."""

from __future__ import annotations

import pytest

from runtime.client import Client, expect_absent
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


async def add(client, count):
    for _ in range(count):
        write = expect_absent("issue", client.ids.new("issue"), b"{}", {"status": "queued"})
        await client.commit(writes=[write])


async def test_what_was_found_is_told_again_for_a_moment_only(store, clock, client):
    """Each request would cost the store several reads, or an old number be told for ever."""
    gauge = Gauge(store, clock)
    for _ in range(5):
        assert (await gauge.load()).pending == 0
        assert await gauge.has_room(client, LIMIT)
    assert store.counts == 3
    await add(client, LIMIT)
    clock.advance(FRESH_S)
    assert not await gauge.has_room(client, LIMIT)


async def test_what_was_accepted_here_counts_at_once(store, clock, client):
    """A process would accept a second's worth of issues beyond the limit."""
    gauge = Gauge(store, clock)
    for _ in range(LIMIT):
        assert await gauge.has_room(client, LIMIT)
        await add(client, 1)
        gauge.accepted(client)
    assert not await gauge.has_room(client, LIMIT)


async def test_from_half_of_the_limit_on_it_is_counted_anew(store, clock, client):
    """What other processes accept would not be seen where it matters."""
    gauge = Gauge(store, clock)
    await add(client, LIMIT // 2)
    assert await gauge.has_room(client, LIMIT)
    await add(client, LIMIT // 2)
    assert not await gauge.has_room(client, LIMIT)
