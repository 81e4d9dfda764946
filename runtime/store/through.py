"""A store behind another: everything is passed on, for those that change one thing.

Who changes one verb overrides it; who changes how every call is made overrides
`_call`; closing is no call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from runtime.store.contract import (
    Activation,
    Commit,
    Committed,
    Document,
    Feed,
    Health,
    JournalEvent,
    Poll,
    Refused,
    Step,
    Store,
    StoredMessage,
)

T = TypeVar("T")


class Through:
    """Implements the contract over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def _call(self, call: Awaitable[T], wait_s: float = 0.0) -> T:
        """One call of the store behind; it may park for `wait_s`."""
        return await call

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        return await self._call(self._store.commit(commits))

    async def register(self, owner: str, name: str, lease_s: float) -> str:
        return await self._call(self._store.register(owner, name, lease_s))

    async def renew(self, owner: str, lease_s: float) -> bool:
        return await self._call(self._store.renew(owner, lease_s))

    async def claim(
        self, owner: str, limit: int, agents: Sequence[str] | None = None
    ) -> list[Activation]:
        return await self._call(self._store.claim(owner, limit, agents))

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        await self._call(self._store.release(owner, agents))

    async def poll(self, owner: str, after: int, limit: int, wait_s: float) -> Poll:
        return await self._call(self._store.poll(owner, after, limit, wait_s), wait_s)

    async def inbox(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        return await self._call(self._store.inbox(agent, after, limit))

    async def history(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        return await self._call(self._store.history(agent, after, limit))

    async def outcome(self, agent: str, message_id: str, wait_s: float) -> StoredMessage | None:
        return await self._call(self._store.outcome(agent, message_id, wait_s), wait_s)

    async def journal(self, agent: str, after: int, limit: int) -> list[JournalEvent]:
        return await self._call(self._store.journal(agent, after, limit))

    async def steps(self, job: str) -> list[Step]:
        return await self._call(self._store.steps(job))

    async def get(self, collection: str, key: str) -> Document | None:
        return await self._call(self._store.get(collection, key))

    async def get_many(self, collection: str, keys: Sequence[str]) -> list[Document]:
        return await self._call(self._store.get_many(collection, keys))

    async def list_documents(
        self,
        collection: str,
        organization: str | None = None,
        terms: Sequence[str] = (),
        after: str | None = None,
        limit: int = 100,
        descending: bool = True,
    ) -> list[Document]:
        return await self._call(
            self._store.list_documents(collection, organization, terms, after, limit, descending)
        )

    async def count(
        self, collection: str, organization: str | None = None, terms: Sequence[str] = ()
    ) -> int:
        return await self._call(self._store.count(collection, organization, terms))

    async def tail(
        self,
        after: int,
        limit: int,
        wait_s: float,
        organization: str | None = None,
        incarnation: str | None = None,
    ) -> Feed:
        return await self._call(
            self._store.tail(after, limit, wait_s, organization, incarnation), wait_s
        )

    async def health(self) -> Health:
        return await self._call(self._store.health())

    async def close(self) -> None:
        await self._store.close()
