"""Documents in SQLite: what a group of commits needs of them, what it changes, lists.

`load` reads the documents a group names, the rules look at them here, `flush`
writes each changed one once.  A deleted document stays as a row without a body,
so that its revisions never come twice, until it is forgotten.  How documents are
found by their terms is `Terms`'.

What is written is mostly written again soon, as a job's record is.  So what the
rules ask of a document, which is no more than its revision, its organization and
its terms, stays known for the `KNOWN_MAX` latest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec
from apsw import Cursor

from runtime.store.contract import ANSWER_BYTES_MAX, Document, Put
from runtime.store.sqlite_bulk import Bulk, Row, first, some
from runtime.store.sqlite_terms import KNOWN, Found, Terms, encode, page_query

MANY: Final = Bulk("document_many", 2)
WRITE: Final = Bulk("document_set", 7)
ROW: Final = Bulk("document_row", 2)
DROP: Final = Bulk("document_drop", 1)

KNOWN_MAX: Final = 16_384
"""Documents of which the revision and the terms are kept, some 600 bytes each."""

_decode_terms = msgspec.msgpack.Decoder(tuple[str, ...]).decode


class _State:
    __slots__ = ("before", "now_ms", "owner", "put", "revision")

    def __init__(self, revision: int, before: Found) -> None:
        self.revision = revision
        self.owner = before[0] if before is not None else None
        """Whose it is; None: it is not there."""
        self.before = before
        """As the table has it."""
        self.put: Put | None = None
        """The latest in this group, which is to be written."""
        self.now_ms = 0


class Documents:
    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._states: dict[tuple[str, str], _State] = {}
        """(collection, key) -> what is known, longest known first."""
        self._changed: list[tuple[tuple[str, str], _State]] = []
        self.terms = Terms(cursor)
        self.count = self.terms.count

    def load(self, keys: Iterable[tuple[str, str]]) -> None:
        """Read those of the documents about to be judged that are not known."""
        missing = [where for where in set(keys) if where not in self._states]
        for collection, key, organization, revision, there, terms in KNOWN.read(
            self._cursor, missing
        ):
            before = (organization, _decode_terms(terms)) if there else None
            self._states[collection, key] = _State(revision, before)

    def last(self, collection: str, key: str) -> tuple[int, str | None]:
        """The revision a document had last, 0 if it never was, and whose it is; None: not there."""
        state = self._states.get((collection, key))
        return (state.revision, state.owner) if state is not None else (0, None)

    def put(self, put: Put, now_ms: int) -> None:
        where = (put.collection, put.key)
        state = self._states.get(where)
        if put.body is None and (state is None or state.owner is None):
            return
        if state is None:
            state = self._states[where] = _State(0, None)
        if state.put is None:
            self._changed.append((where, state))
        state.revision += 1
        state.owner = put.organization if put.body is not None else None
        state.put, state.now_ms = put, now_ms

    def flush(self) -> None:
        """Write what changed and forget what has been known longest."""
        written: list[Row] = []
        for where, state in self._changed:
            put = state.put
            assert put is not None
            there = state.owner is not None
            terms = put.terms if there else ()
            written.append(
                (*where, put.organization, state.revision, put.body, encode(terms), state.now_ms)
            )
            now = (put.organization, terms) if there else None
            if now != state.before:
                self.terms.moved(where, state.before, now)
            state.before, state.put = now, None
        self._changed = []
        WRITE.run(self._cursor, written)
        self.terms.flush()
        if len(self._states) > KNOWN_MAX:
            for where in list(islice(self._states, len(self._states) - KNOWN_MAX * 7 // 8)):
                del self._states[where]

    # forgetting

    def drop(self, keys: Sequence[tuple[str, str]]) -> None:
        """Remove documents that are there, and their terms."""
        found = ROW.read(self._cursor, keys)
        for _, collection, key, organization, terms in found:
            self.terms.gone(collection, key, (organization, _decode_terms(terms)))
        self.drop_rows([(rowid,) for rowid, *_ in found])

    def drop_rows(self, found: Sequence[Row]) -> None:
        """Remove what is left of deleted documents, by its rows' ids."""
        if found:
            DROP.run(self._cursor, found)
            self._states.clear()  # by their ids nobody knows which they were

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
        """Those that the index has, and those that only `Terms` knows of."""
        more, fewer = self.terms.behind(collection, organization, terms)
        if after is not None:
            more = {key for key in more if (key < after if descending else key > after)}
        asked = (collection, organization, terms, after, limit + len(fewer), descending)
        if more or fewer:  # rows may be passed over: not with their bodies
            text, values = page_query("term_page", *asked)
            rows: list[Row] = self._cursor.execute(text, values).fetchall()
            found: list[str] = [key for (key,) in rows]
            last = found[-1] if found and len(found) == limit + len(fewer) else None
            if last is not None:
                more = {key for key in more if (key > last if descending else key < last)}
            keys = sorted(more.union(found) - fewer, reverse=descending)[:limit]
            wanted = [(collection, key) for key in keys]
            page, _ = MANY.some(self._cursor, wanted, _size, ANSWER_BYTES_MAX)
        else:
            text, values = page_query("document_page", *asked)
            page, _ = some(self._cursor, text, values, _size, ANSWER_BYTES_MAX)
        return [_document(row) for row in page]


def _size(row: Row) -> int:
    return len(row[3])


def _document(row: Row) -> Document:
    key, organization, revision, body, terms, updated_ms = row
    return Document(key, organization, revision, body, _decode_terms(terms), updated_ms)
