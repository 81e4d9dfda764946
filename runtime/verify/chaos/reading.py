"""The independent reader of a chaos run: the store itself, through the contract's reads alone."""

from __future__ import annotations

from runtime.job import AgentJob
from runtime.patience import patiently
from runtime.store.contract import BATCH_MAX, Document, Store
from runtime.verify.chaos.watch import MARK


async def is_settled(store: Store) -> bool:
    """Whether no message waits and every job has ended."""
    for agent in await _documents(store, "agent"):
        if await patiently(store.inbox, agent.key, 0, 1):
            return False
    jobs = await _documents(store, "job")
    return all(AgentJob.from_json(one.body).status.final for one in jobs)


async def marks(store: Store) -> list[tuple[int, str]]:
    """(cursor, id) of every commit's mark, in order."""
    found: list[tuple[int, str]] = []
    after = 0
    while page := (await store.tail(after, BATCH_MAX, 0)).entries:
        after = page[-1].cursor
        found += [(one.cursor, one.body.decode()) for one in page if one.event == MARK]
    return found


async def _documents(store: Store, collection: str) -> list[Document]:
    found: list[Document] = []
    while page := await _page(store, collection, found[-1].key if found else None):
        found += page
    return found


async def _page(store: Store, collection: str, after: str | None) -> list[Document]:
    return await patiently(
        store.list_documents, collection, after=after, limit=BATCH_MAX, descending=False
    )
