"""Documents in SQLite: what a group of commits needs of them, what it changes, lists.

`load` reads the documents a group names, the rules look at them here, `flush`
writes each changed one once, with the difference of its terms.  A deleted
document stays as a row without a body, so that its revisions never come twice,
until it is forgotten.
Between two groups nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Cursor
from typing import Any, Final

import msgspec

from runtime.store.contract import Document, Put
from runtime.store.sqlite_bulk import QUERIES, Bulk, Row, first

KNOWN: Final = Bulk("document_known", 2)
MANY: Final = Bulk("document_many", 2)
WRITE: Final = Bulk("document_set", 7)
ROW: Final = Bulk("document_row", 2)
DROP: Final = Bulk("document_drop", 1)
ADD_TERMS: Final = Bulk("term_new", 4)
EVERY_TERM: Final = ""
"""The term that each document has."""

_decode_terms = msgspec.msgpack.Decoder(tuple[str, ...]).decode
_encode_terms = msgspec.msgpack.Encoder().encode
_Terms = set[tuple[str, str]]
"""(organization, term)"""


class _State:
    __slots__ = ("now_ms", "put", "revision", "terms_before", "there")

    def __init__(self, revision: int, there: bool, terms_before: _Terms) -> None:
        self.revision = revision
        self.there = there
        self.terms_before = terms_before
        """As the table has them."""
        self.put: Put | None = None
        """The latest in this group."""
        self.now_ms = 0


class Documents:
    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._states: dict[tuple[str, str], _State] = {}

    def load(self, keys: Iterable[tuple[str, str]]) -> None:
        """Read the documents that are about to be judged."""
        for collection, key, organization, revision, there, terms in KNOWN.read(
            self._cursor, list(set(keys))
        ):
            before = _indexed(organization, _decode_terms(terms)) if there else set()
            self._states[collection, key] = _State(revision, bool(there), before)

    def last(self, collection: str, key: str) -> tuple[int, bool]:
        """The revision a document had last, 0 if it never was, and whether it is there."""
        state = self._states.get((collection, key))
        return (state.revision, state.there) if state is not None else (0, False)

    def put(self, put: Put, now_ms: int) -> None:
        where = (put.collection, put.key)
        state = self._states.get(where)
        if put.body is None and (state is None or not state.there):
            return
        if state is None:
            state = self._states[where] = _State(0, False, set())
        state.revision += 1
        state.there = put.body is not None
        state.put, state.now_ms = put, now_ms

    def flush(self) -> None:
        """Write what changed and forget what was loaded."""
        written: list[Row] = []
        added: list[Row] = []
        dropped: list[Row] = []
        for (collection, key), state in self._states.items():
            put = state.put
            if put is None:
                continue
            terms = put.terms if state.there else ()
            after = _indexed(put.organization, terms) if state.there else set()
            written.append(
                (collection, key, put.organization, state.revision, put.body,
                 _encode_terms(terms), state.now_ms)
            )  # fmt: skip
            added += [(collection, *term, key) for term in after - state.terms_before]
            dropped += [(collection, *term, key) for term in state.terms_before - after]
        self._states = {}
        WRITE.run(self._cursor, written)
        if dropped:
            self._cursor.executemany(QUERIES["term_drop"], dropped)
        ADD_TERMS.run(self._cursor, added)

    # forgetting

    def drop(self, keys: Sequence[tuple[str, str]]) -> None:
        """Remove documents that are there, and their terms."""
        found = ROW.read(self._cursor, keys)
        gone = [
            (collection, organization, term, key)
            for _, collection, key, organization, terms in found
            for organization, term in _indexed(organization, _decode_terms(terms))
        ]
        self._cursor.executemany(QUERIES["term_drop"], gone)
        self.drop_rows([(rowid,) for rowid, *_ in found])

    def drop_rows(self, found: Sequence[Row]) -> None:
        """Remove what is left of deleted documents, by its rows' ids."""
        DROP.run(self._cursor, found)

    # reading

    def get(self, collection: str, key: str) -> Document | None:
        row = first(self._cursor, "document_get", collection, key)
        return None if row is None else _document(row)

    def get_many(self, collection: str, keys: Sequence[str]) -> list[Document]:
        wanted = [(collection, key) for key in dict.fromkeys(keys)]
        return [_document(row) for row in MANY.read(self._cursor, wanted)]

    def page(
        self,
        collection: str,
        organization: str | None,
        terms: Sequence[str],
        after: str | None,
        limit: int,
        descending: bool,
    ) -> list[Document]:
        text, values = list_query(collection, organization, terms, after, limit, descending)
        return [_document(row) for row in self._cursor.execute(text, values).fetchall()]

    def count(self, collection: str, organization: str | None, terms: Sequence[str]) -> int:
        more, values = _narrowed(collection, organization, terms)
        found = self._cursor.execute(QUERIES["document_count"] + more, values)
        return int(found.fetchall()[0][0])


def list_query(
    collection: str,
    organization: str | None,
    terms: Sequence[str],
    after: str | None,
    limit: int,
    descending: bool,
) -> tuple[str, list[Any]]:
    """The query of one page: a walk along the first term, in order of the keys."""
    more, values = _narrowed(collection, organization, terms)
    if after is not None:
        more += " AND t.key " + ("< ?" if descending else "> ?")
        values.append(after)
    more += " ORDER BY t.key " + ("DESC" if descending else "ASC") + " LIMIT ?"
    return QUERIES["document_page"] + more, [*values, limit]


def _narrowed(
    collection: str, organization: str | None, terms: Sequence[str]
) -> tuple[str, list[Any]]:
    """What to add to a query of one term for the organization and the other terms."""
    first, *others = list(dict.fromkeys(terms)) or [EVERY_TERM]
    more, values = "", [collection, first]
    if organization is not None:
        more += " AND t.organization = ?"
        values.append(organization)
    more += QUERIES["document_has_term"] * len(others)
    return more, [*values, *others]


def _indexed(organization: str, terms: Iterable[str]) -> _Terms:
    return {(organization, term) for term in (EVERY_TERM, *terms)}


def _document(row: Row) -> Document:
    key, organization, revision, body, terms, updated_ms = row
    return Document(key, organization, revision, body, _decode_terms(terms), updated_ms)
