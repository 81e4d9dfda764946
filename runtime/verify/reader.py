"""The independent reader: after a run, everything that is stored becomes facts.

final.agent   agent, epoch, ver   value Stored
final.steps   key job             value its steps
final.put     key collection      value its documents
final.feed                        value its entries
"""

from __future__ import annotations

from typing import Final

import msgspec

from runtime.store.contract import (
    BATCH_MAX,
    Document,
    FeedEntry,
    JournalEvent,
    Snapshot,
    Store,
    StoredMessage,
)
from runtime.verify.history import History

READER: Final = "reader"
LEASE_S: Final = 1_000_000.0


class Stored(msgspec.Struct):
    """One agent as it is stored."""

    messages: list[StoredMessage]
    journal: list[JournalEvent]
    snapshot_version: int
    snapshot: Snapshot | None
    tail: tuple[JournalEvent, ...]
    """The journal after the snapshot, as a claim answers it."""


async def read_everything(store: Store, history: History) -> None:
    """Append what is stored; claims every agent, so it must be the last to use the store."""
    written = [fact.value.commit for fact in history.facts if fact.f == "commit"]
    agents = {commit.agent for commit in written if commit.agent}
    agents |= {send.recipient for commit in written for send in commit.sends}
    await store.register(f"{READER}/0", READER, LEASE_S)
    for agent in sorted(agents):
        await _agent(store, history, agent)
    for job in sorted(
        {item.job for commit in written for item in (*commit.intents, *commit.results)}
    ):
        history.add(READER, "ok", "final.steps", key=job, value=await store.steps(job))
    for collection in sorted({put.collection for commit in written for put in commit.puts}):
        documents = await _documents(store, collection)
        history.add(READER, "ok", "final.put", key=collection, value=documents)
    history.add(READER, "ok", "final.feed", value=await _feed(store))


async def _agent(store: Store, history: History, agent: str) -> None:
    messages: list[StoredMessage] = []
    while page := await store.history(agent, messages[-1].seq if messages else 0, BATCH_MAX):
        messages += page
    journal: list[JournalEvent] = []
    while events := await store.journal(agent, len(journal), BATCH_MAX):
        journal += events
    claimed = await store.claim(f"{READER}/0", 1, [agent])
    if not claimed:  # its host still has a lease: what a claim would answer is not known
        stored = Stored(messages, journal, 0, None, tuple(journal))
        history.add(READER, "ok", "final.agent", agent=agent, ver=len(journal), value=stored)
        return
    [one] = claimed
    stored = Stored(messages, journal, one.snapshot_version, one.snapshot, one.events)
    history.add(
        READER, "ok", "final.agent", agent=agent, epoch=one.epoch, ver=one.version, value=stored
    )


async def _documents(store: Store, collection: str) -> list[Document]:
    found: list[Document] = []
    while page := await store.list_documents(
        collection, after=found[-1].key if found else None, limit=BATCH_MAX, descending=False
    ):
        found += page
    return found


async def _feed(store: Store) -> list[FeedEntry]:
    entries: list[FeedEntry] = []
    while page := (await store.tail(entries[-1].cursor if entries else 0, BATCH_MAX, 0)).entries:
        entries += page
    return entries
