"""Documents in memory: bodies with a revision, found by key or by their terms.

A revision never comes twice for a key, not even after the document was
deleted: what was read before the deletion can't overwrite what came after it.
Checking `Put.expect` is `rules`' business.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.store.contract import ABSENT, Document, Put


class Documents:
    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Document]] = {}
        self._deleted: dict[tuple[str, str], int] = {}
        """Last revision of deleted documents: a revision never comes twice."""

    def get(self, collection: str, key: str) -> Document | None:
        return self._kept.get(collection, {}).get(key)

    def revision(self, collection: str, key: str) -> int:
        document = self.get(collection, key)
        return ABSENT if document is None else document.revision

    def put(self, put: Put, now_ms: int) -> None:
        kept = self._kept.setdefault(put.collection, {})
        where = (put.collection, put.key)
        revision = self.revision(*where) or self._deleted.get(where, 0)
        if put.body is not None:
            self._deleted.pop(where, None)
            kept[put.key] = Document(
                put.key, put.organization, revision + 1, put.body, put.terms, now_ms
            )
        elif kept.pop(put.key, None) is not None:
            self._deleted[where] = revision + 1

    def matching(
        self, collection: str, organization: str | None, terms: Sequence[str]
    ) -> list[Document]:
        return [
            one
            for one in self._kept.get(collection, {}).values()
            if organization in (None, one.organization) and set(terms) <= set(one.terms)
        ]
