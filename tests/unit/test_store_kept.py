"""What the SQLite store keeps of documents and messages in memory is what its file says."""

from __future__ import annotations

import asyncio

import pytest

from runtime.clock import ManualClock
from runtime.errors import StoreError
from runtime.store import sqlite_documents, sqlite_inbox
from runtime.store.contract import (
    ABSENT,
    Ack,
    Commit,
    Committed,
    FeedEvent,
    Fence,
    Put,
    Refused,
    Send,
)
from runtime.store.sqlite import SqliteStore
from runtime.verify.conformance.machine import run_machine
from tests.conformance.stores import STORES
from tests.unit.test_store_sqlite import statements

A = "acme/counter:a"


@pytest.fixture
async def store(tmp_path):
    store = await SqliteStore.open(tmp_path / "store.db", ManualClock(), boot_id="boot 1")
    yield store
    await store.close()


def put(key, expect, body=b"1"):
    return Commit("acme", puts=(Put("job", key, "acme", body, ("a=1",), expect),))


def send(id, body=b"{}"):
    return Commit("acme", sends=(Send(id, "acme/client:test", A, body),))


def test_with_next_to_nothing_kept_random_work_agrees_with_the_model(monkeypatch):
    """What was forgotten would be read as something else than what was kept."""
    monkeypatch.setattr(sqlite_documents, "KNOWN_MAX", 2)
    monkeypatch.setattr(sqlite_inbox, "KEPT_BYTES", 2 * sqlite_inbox.KEPT_EACH_BYTES)
    run_machine(STORES, "sqlite", runs=12, steps=30, derandomize=True)


async def test_a_document_that_was_just_written_is_judged_without_a_read(store):
    """Each status of a job would cost a walk down the index."""
    await store.commit([put("k", ABSENT)])
    written = statements(store)
    for revision in (1, 2):
        assert isinstance((await store.commit([put("k", revision)]))[0], Committed)
    assert isinstance((await store.commit([put("k", 2)]))[0], Refused)
    assert not [sql for sql in written if sql.startswith("WITH wanted (collection, key)")]


async def test_what_a_failed_transaction_wrote_is_not_known(store):
    """A revision that never was would be taken for the present one."""
    nonsense = Commit("acme", feed=(FeedEvent("acme", "e", (), 1 << 70, b""),))
    await store.commit([put("k", ABSENT)])
    both = [store.commit([put("k", 1)]), store.commit([nonsense])]
    (first,), second = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(first, Committed) and isinstance(second, StoreError)
    assert isinstance((await store.commit([put("k", 2)]))[0], Committed)


async def test_a_new_message_is_answered_without_a_read(store):
    """Each message would be put together again from five tables, right after it was written."""
    await store.register("h", "host", 10)
    await store.commit([send("m1")])
    written = statements(store)
    (activation,) = await store.claim("h", 10)
    await store.commit([send("m2")])
    polled = await store.poll("h", activation.inbox[-1].seq, 10, 0)
    assert [one.message_id for one in (*activation.inbox, *polled.messages)] == ["m1", "m2"]
    assert not [sql for sql in written if sql.startswith("WITH wanted (seq)")]
    fence = Fence(await store.register("h", "host", 10), activation.epoch)
    await store.commit([Commit("acme", A, fence, acks=(Ack("m1"), Ack("m2")))])
    assert not store._transactions.book.inbox._kept


async def test_messages_that_are_kept_have_a_bound(store, monkeypatch):
    """An inbox that nobody empties would be held in memory, bodies and all."""
    monkeypatch.setattr(sqlite_inbox, "KEPT_BYTES", 10_000)
    sent = [f"m{number}" for number in range(40)]
    for id in sent:
        await store.commit([send(id, b"1" * 1_000)])
        kept = store._transactions.book.inbox._kept
        assert sum(len(one.body) for one in kept.values()) <= 10_000
    assert [one.message_id for one in await store.inbox(A, 0, 100)] == sent


async def test_documents_that_are_known_have_a_bound(store, monkeypatch):
    """Everything that was ever written would be known."""
    monkeypatch.setattr(sqlite_documents, "KNOWN_MAX", 16)
    for number in range(100):
        await store.commit([put(f"k{number}", ABSENT)])
        assert len(store._transactions.book.documents._states) <= 16
    found = await store.commit([put(f"k{number}", 1) for number in range(100)])
    assert all(isinstance(one, Committed) for one in found)
