"""The index of documents in SQLite follows behind them; what is listed never does."""

from __future__ import annotations

import asyncio
import random

import apsw
import pytest

from runtime.clock import ManualClock
from runtime.store import sqlite_terms
from runtime.store.contract import Commit, Put
from runtime.store.memory import MemoryStore
from runtime.store.sqlite import SqliteStore
from tests.unit.test_store_sqlite import connection_of, statements

ORGANIZATIONS = ("acme", "beta")
TERMS = ("a=1", "a=2", "b=1", "b=2")
KEYS = [f"k{number}" for number in range(12)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


async def opened(path):
    return await SqliteStore.open(path, ManualClock(), boot_id="boot 1")


def put(key, *terms, body=b"1", organization="acme"):
    return Commit(organization, puts=(Put("job", key, organization, body, terms),))


def bounded(monkeypatch, behind, most, together):
    for name, value in (("BEHIND", behind), ("BEHIND_MAX", most), ("TOGETHER", together)):
        monkeypatch.setattr(sqlite_terms, name, value)


async def noted(store):
    """How many documents are behind the index."""
    rows = connection_of(store).execute("SELECT count(*) FROM unindexed").fetchall()
    return rows[0][0]


async def until(true):
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


def drawn(dice):
    body = None if dice.random() < 0.2 else b"1"
    terms = dice.sample(TERMS, dice.randrange(len(TERMS)))
    return put(dice.choice(KEYS), *terms, body=body, organization=dice.choice(ORGANIZATIONS))


async def looks(store, dice):
    """What some lists and counts answer."""
    found = []
    for _ in range(6):
        terms = dice.sample(TERMS, dice.randrange(3))
        organization = dice.choice((None, *ORGANIZATIONS))
        after = dice.choice((None, *KEYS))
        page = await store.list_documents(
            "job", organization, terms, after, dice.randrange(1, 6), dice.random() < 0.5
        )
        found.append([(one.key, one.organization, one.terms) for one in page])
        found.append(await store.count("job", organization, terms))
    return found


@pytest.mark.parametrize("seed", range(12))
async def test_lists_know_what_the_index_does_not(path, monkeypatch, seed):
    """A job would be listed under the status it had before, or not at all."""
    dice = random.Random(seed)
    bounded(monkeypatch, dice.choice((0, 3)), dice.choice((3, 5, 1_000)), dice.choice((1, 2)))
    memory, store = MemoryStore(ManualClock()), await opened(path)
    for _ in range(40):
        commits = [drawn(dice) for _ in range(dice.randrange(1, 4))]
        assert len(await memory.commit(commits)) == len(await store.commit(commits))
        if dice.random() < 0.15:  # what is noted must be known again
            await store.close()
            store = await opened(path)
        asked = dice.random()
        assert await looks(store, random.Random(asked)) == await looks(memory, random.Random(asked))
    await store.close()


async def test_a_document_enters_the_index_once_however_often_it_moves(path, monkeypatch):
    """A job's three statuses would be written into the index and two of them out of it again."""
    bounded(monkeypatch, 1_000, 2, 1)
    store = await opened(path)
    written = statements(store)
    for status in ("pending", "running", "completed"):
        await store.commit([put("k", f"status={status}")])
    assert not [sql for sql in written if " term " in sql]
    for key in ("l", "m"):  # they take its place among those that are behind
        await store.commit([put(key)])
    (touched,) = [sql for sql in written if " term " in sql]
    assert touched.startswith("INSERT") and "status=completed" in touched
    assert touched.count("'k'") == touched.count("'job'") == 2
    await store.close()


async def test_only_the_terms_that_changed_are_written(path, monkeypatch):
    """A status change would rewrite every index entry of a job."""
    bounded(monkeypatch, 1_000, 0, 1)
    store = await opened(path)
    await store.commit([put("k", "a=1", "b=1")])
    written = statements(store)
    await store.commit([put("k", "a=1", "b=2")])
    touched = [sql for sql in written if " term " in sql]
    assert len(touched) == 2 and "'b=1'" in touched[0] and "'b=2'" in touched[1]
    await store.close()


async def test_what_is_behind_the_index_is_bounded(path, monkeypatch):
    """Each list would walk all that was ever written."""
    bounded(monkeypatch, 1_000, 20, 4)
    store = await opened(path)
    for first in range(0, 400, 8):
        await store.commit([put(f"k{number}", "a=1") for number in range(first, first + 8)])
        assert await noted(store) <= 20
    assert await store.count("job", None, ["a=1"]) == 400
    await store.close()


async def test_what_is_behind_enters_the_index_while_nobody_waits(path, monkeypatch):
    """Each list would walk all of it until there is too much, and then who writes would wait."""
    bounded(monkeypatch, 4, 1_000, 2)
    store = await opened(path)
    await store.commit([put(f"k{number}", "a=1") for number in range(40)])
    async with asyncio.timeout(10):
        while await noted(store) > 5:
            await asyncio.sleep(0.05)  # meanwhile it is left alone
    assert await store.count("job", None, ["a=1"]) == 40
    await store.close()


async def test_a_full_disk_is_not_tried_again_and_again_by_an_idle_store(path, monkeypatch):
    """It would use a whole core for as long as nobody makes room."""
    bounded(monkeypatch, 0, 1_000, 2)
    tries = []

    def full(terms, many=None):
        tries.append(many)
        raise apsw.FullError("database or disk is full")

    monkeypatch.setattr(sqlite_terms.Terms, "catch_up", full)
    store = await opened(path)
    await store.commit([put(f"k{number}") for number in range(9)])
    await until(lambda: tries)
    for _ in range(20):
        await store.count("job", None, [])
    assert len(tries) == 1
    await store.commit([put("another")])  # it is as before, and tries again when it has written
    await until(lambda: len(tries) > 1)
    assert await store.count("job", None, []) == 10
    await store.close()


async def test_a_file_of_the_first_schema_becomes_one_of_this(path):
    """An upgrade would refuse the file, or list nothing that was written before it."""
    store = await opened(path)
    await store.commit([put("k", "a=1")])
    store._transactions.book.documents.terms.catch_up()
    for statement in ("DROP TABLE unindexed", "PRAGMA user_version = 1"):
        connection_of(store).execute(statement)
    await store.close()
    store = await opened(path)
    await store.commit([put("k", "a=2")])
    assert await store.count("job", "acme", ["a=1"]) == 0
    assert [one.key for one in await store.list_documents("job", "acme", ["a=2"])] == ["k"]
    await store.close()
