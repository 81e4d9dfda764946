"""A page that is short because its rows are long is not the last, whoever reads it."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from runtime.client import Client
from runtime.clock import ManualClock
from runtime.console.paging import PageQuery, number_page
from runtime.console.sessions import _window
from runtime.ids import Ids
from runtime.plans.book import PlanBook
from runtime.registry import Registry
from runtime.retention import Retention
from runtime.scheduler import Scheduler
from runtime.store import rules
from runtime.store.contract import Commit, Put, Send
from runtime.store.memory import MemoryStore

A = "acme/counter:a"
CALLER = SimpleNamespace(principal=SimpleNamespace(organization="acme"))


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def store(clock, monkeypatch):
    """Two rows of ten bytes pass an answer of it."""
    monkeypatch.setattr(rules, "ANSWER_BYTES_MAX", 15)
    store = MemoryStore(clock)
    yield store
    await store.close()


async def write(store, collection, keys, body=b"x" * 10, terms=()):
    for key in keys:
        put = Put(collection, key, "acme", body, terms)
        await store.commit([Commit("acme", puts=(put,))])


async def send(store, count):
    for number in range(count):
        sent = Send(f"m{number}", "acme/client:x", A, b"x" * 10)
        await store.commit([Commit("acme", sends=(sent,))])


async def test_the_scheduler_reads_all_that_is_open(store, clock):
    """Jobs would be forgotten by a scheduler that begins."""
    await write(store, "job", "abcde", terms=("status=pending",))
    scheduler = Scheduler(store, clock, Ids(clock), random.random)
    found = await scheduler._all("job", ["status=pending"])
    assert [one.key for one in found] == list("abcde")


async def test_all_heads_are_read(store, clock):
    """Schedules would be forgotten by a scheduler that begins."""
    await write(store, "head", "abcde")
    book = PlanBook(store, clock, SimpleNamespace())
    pages = [[one.key for one in page] async for page in book._pages("head")]
    assert pages == [["a", "b"], ["c", "d"], ["e"]]


async def test_all_services_are_found(store, clock):
    """Services would not be found by what they are."""
    registry = Registry(store, clock, "acme")
    for name in "abcde":
        await registry.register_service(name, {"is": "here"}, {})
    assert len(await registry.discover_service({})) == 5


async def test_retention_goes_on_along_the_jobs(store, clock):
    """Steps of the jobs behind a short page would be kept for ever."""
    await write(store, "job", "abcde", terms=("status=completed",))
    clock.advance(1)
    duty, seen = Retention(store, clock), []
    while (page := await duty._ended(clock.now_ms())) is not None:
        seen += [one.key for one in page]
    assert seen == list("abcde")


async def test_retention_forgets_all_that_was_asked_of_a_job(store, clock):
    """What people had said to a job would be kept for ever."""
    await write(store, "job", ["a", "c"])
    await write(store, "signal", [f"{job}/{number}" for job in "abc" for number in range(5)])
    await Retention(store, clock)._forget_requests(
        [await store.get("job", "a"), await store.get("job", "c")]
    )
    assert await store.count("signal") == 5


async def test_a_page_of_what_is_numbered_is_full(store):
    """A list would end in the middle."""
    await send(store, 5)

    async def read(query):
        return await number_page(
            CALLER, "messages", query, lambda *where: store.history(A, *where), lambda row: row.seq
        )

    rows, cursor = await read(PageQuery(limit=4))
    assert [row.seq for row in rows] == [1, 2, 3, 4]
    rows, cursor = await read(PageQuery(limit=4, cursor=cursor))
    assert [row.seq for row in rows] == [5] and cursor is None


async def test_sessions_are_looked_for_in_all_messages(store):
    """Runs of an agent would be left out, or all its messages be held at once."""
    await send(store, 5)
    assert await _window(store, A, 0, 6) == [(seq, None) for seq in (1, 2, 3, 4, 5)]
    assert await _window(store, A, 1, 4) == [(2, None), (3, None)]


async def test_a_client_reads_a_list_to_its_end(store, clock):
    """The tools that read page by page would stop early."""
    await write(store, "note", "abcde")
    client, found, after = Client(store, clock, Ids(clock), "acme"), [], None
    while page := await client.list("note", after=after, descending=False):
        found += [one.key for one in page]
        after = page[-1].key
    assert found == list("abcde")
