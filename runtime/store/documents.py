"""Documents in memory: bodies with a revision, found by key or by their terms.

A revision never comes twice for a key, not even after the document was
deleted: what was read before the deletion can't overwrite what came after it
(as long as the deletion is remembered, see `Upkeep.prune`).
Checking `Put.expect` is `rules`' business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from runtime.store.contract import Document, Put

K = TypeVar("K")


class Documents:
    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Document]] = {}
        self._deleted: dict[tuple[str, str], Document] = {}
        """What is left of deleted documents: a revision never comes twice."""

    def get(self, collection: str, key: str) -> Document | None:
        return self._kept.get(collection, {}).get(key)

    def last(self, collection: str, key: str) -> tuple[int, str | None]:
        """The revision a document had last, 0 if it never was, and whose it is; None: not there."""
        kept, deleted = self.get(collection, key), self._deleted.get((collection, key))
        found = kept or deleted
        return (found.revision if found else 0, kept.organization if kept else None)

    def put(self, put: Put, now_ms: int) -> None:
        kept = self._kept.setdefault(put.collection, {})
        where = (put.collection, put.key)
        revision = 1 + self.last(*where)[0]
        if put.body is not None:
            self._deleted.pop(where, None)
            kept[put.key] = Document(
                put.key, put.organization, revision, put.body, put.terms, now_ms
            )
        elif kept.pop(put.key, None) is not None:
            self._deleted[where] = Document(put.key, put.organization, revision, b"", (), now_ms)

    def matching(
        self, collection: str, organization: str | None, terms: Sequence[str]
    ) -> list[Document]:
        return [
            one
            for one in self._kept.get(collection, {}).values()
            if organization in (None, one.organization) and set(terms) <= set(one.terms)
        ]

    def forgettable(self, before_ms: int) -> list[tuple[str, str]]:
        """What was deleted before, longest ago first."""
        found = [(one.updated_ms, where) for where, one in self._deleted.items()]
        return [where for at_ms, where in sorted(found) if at_ms < before_ms]

    def forget(self, where: tuple[str, str]) -> None:
        """Nothing is left of a deleted document."""
        del self._deleted[where]

    def purge(self, organization: str) -> int:
        """Remove an organization's documents, deleted ones too; how many."""
        before = len(self._deleted) + sum(map(len, self._kept.values()))
        for collection, kept in self._kept.items():
            self._kept[collection] = _others(kept, organization)
        self._deleted = _others(self._deleted, organization)
        return before - len(self._deleted) - sum(map(len, self._kept.values()))


def _others(documents: dict[K, Document], organization: str) -> dict[K, Document]:
    return {key: one for key, one in documents.items() if one.organization != organization}
