"""The independent reader of a chaos run: what is stored, through the contract's reads alone."""

from __future__ import annotations

from typing import Final

from runtime.ids import HOME
from runtime.job import AgentJob
from runtime.patience import patiently
from runtime.store.contract import (
    BATCH_MAX,
    Document,
    FeedEntry,
    JournalEvent,
    Store,
    StoredMessage,
)
from runtime.verify.chaos.aftermath import Aftermath, Remains
from runtime.verify.chaos.load import Promises
from runtime.verify.chaos.outside import Outside

READER: Final = "reader"
LEASE_S: Final = 3_600.0


async def is_settled(store: Store, jobs: list[str]) -> bool:
    """Whether no message waits and every hired job has ended."""
    for agent in await _documents(store, "agent"):
        if await patiently(lambda where=agent.key: store.inbox(where, 0, 1)):  # type: ignore[misc]
            return False
    final = [one for one in await _documents(store, "job") if _job(one).status.final]
    return len(final) >= len(jobs)


async def read(store: Store, promises: Promises, outside: Outside, opening: int) -> Aftermath:
    """Everything; claims every agent, so it must be the last to use the store."""
    await store.register(f"{READER}/0", READER, LEASE_S)
    agents = [one.key for one in await _documents(store, "agent")]
    jobs = {one.key: _job(one) for one in await _documents(store, "job")}
    return Aftermath(
        agents={agent: await _remains(store, agent) for agent in agents},
        jobs=jobs,
        steps={job: await store.steps(job) for job in jobs},
        feed=await _feed(store),
        promised={id: f"{HOME}/{to}" for id, to in promises.messages.items()},
        hired=promises.jobs,
        calls=outside.calls,
        opening=opening,
    )


async def _remains(store: Store, agent: str) -> Remains:
    messages: list[StoredMessage] = []
    while page := await store.history(agent, messages[-1].seq if messages else 0, BATCH_MAX):
        messages += page
    journal: list[JournalEvent] = []
    while events := await store.journal(agent, len(journal), BATCH_MAX):
        journal += events
    claimed = await store.claim(f"{READER}/0", 1, [agent])
    version, snapshot = (claimed[0].snapshot_version, claimed[0].snapshot) if claimed else (0, None)
    return Remains(messages, journal, version, snapshot)


async def _feed(store: Store) -> list[FeedEntry]:
    feed: list[FeedEntry] = []
    while page := (await store.tail(feed[-1].cursor if feed else 0, BATCH_MAX, 0)).entries:
        feed += page
    return feed


async def _documents(store: Store, collection: str) -> list[Document]:
    found: list[Document] = []
    while page := await _page(store, collection, found[-1].key if found else None):
        found += page
    return found


async def _page(store: Store, collection: str, after: str | None) -> list[Document]:
    return await patiently(
        lambda: store.list_documents(collection, after=after, limit=BATCH_MAX, descending=False)
    )


def _job(document: Document) -> AgentJob:
    return AgentJob.model_validate_json(document.body)
