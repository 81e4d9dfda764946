"""The index of documents in SQLite, which follows behind them.

A job's record is written three times within milliseconds, each time under
another status.  So a document whose terms have changed is noted (`unindexed`,
an appended row, in the same transaction) and enters the index when it is among
those that were noted longest ago: with the terms that it has by then.  What is
noted is known in memory, so lists are never behind.

BEHIND documents may stay noted.  What is more enters the index while the store
has nothing else to do; from BEHIND_MAX on, with each transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

import msgspec
from apsw import Cursor

from runtime.store.sqlite_bulk import QUERIES, Bulk, Row, rows

KNOWN: Final = Bulk("document_known", 2)
NOTE: Final = Bulk("unindexed_new", 5)
UNNOTE: Final = Bulk("unindexed_drop", 1)
ADD: Final = Bulk("term_new", 4)

BEHIND: Final = 1_024
BEHIND_MAX: Final = 4_096
TOGETHER: Final = 64
"""Documents that enter the index together; sorted, they share its pages."""
EVERY: Final = ""
"""The term that each document has."""

Found = tuple[str, tuple[str, ...]] | None
"""A document's organization and terms; None when it is not there."""

_decode: Final = msgspec.msgpack.Decoder(tuple[str, ...]).decode
encode: Final = msgspec.msgpack.Encoder().encode


class _Noted:
    """A document that is not in the index as it is now."""

    __slots__ = ("before", "id", "now")

    def __init__(self, id: int, before: Found, now: Found) -> None:
        self.id = id
        self.before = before
        """As the index has it."""
        self.now = now


class Terms:
    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._noted: dict[tuple[str, str], _Noted] = {}
        """(collection, key) -> what became of it, in the order in which they were noted."""
        self._new: list[Row] = []
        self._last = 0
        self._load()

    def _load(self) -> None:
        noted = rows(self._cursor, "unindexed_all")
        now: dict[tuple[str, str], Found] = {
            (collection, key): (organization, _decode(terms))
            for collection, key, organization, _, there, terms in KNOWN.read(
                self._cursor, [(collection, key) for _, collection, key, _, _ in noted]
            )
            if there
        }
        for id, collection, key, organization, terms in noted:
            where = (collection, key)
            before = (organization, _decode(terms)) if terms else None
            self._noted[where] = _Noted(id, before, now.get(where))
            self._last = id

    @property
    def is_behind(self) -> bool:
        """Whether there is enough to let some of it into the index."""
        return len(self._noted) >= BEHIND + TOGETHER

    def moved(self, where: tuple[str, str], before: Found, now: Found) -> None:
        """A document (collection, key) is found under other terms from now on."""
        noted = self._noted.get(where)
        if noted is not None:
            noted.now = now
            return
        self._last += 1
        self._noted[where] = _Noted(self._last, before, now)
        organization, terms = (before[0], encode(before[1])) if before else ("", b"")
        self._new.append((self._last, *where, organization, terms))

    def flush(self) -> None:
        """Note what has moved; let some of it into the index if there is too much."""
        NOTE.run(self._cursor, self._new)
        self._new = []
        excess = len(self._noted) - BEHIND_MAX
        if excess > 0:
            self.catch_up(max(TOGETHER, excess))

    def catch_up(self, many: int | None = None) -> None:
        """Let those into the index that were noted longest ago; default: all."""
        first = list(islice(self._noted, many))
        self._enter([(where, self._noted.pop(where)) for where in first])

    def gone(self, collection: str, key: str, now: Found) -> None:
        """The row of a document is removed: its terms go at once."""
        noted = self._noted.pop((collection, key), None) or _Noted(0, now, now)
        noted.now = None
        self._enter([((collection, key), noted)])

    def _enter(self, found: Sequence[tuple[tuple[str, str], _Noted]]) -> None:
        added: list[Row] = []
        dropped: list[Row] = []
        for (collection, key), noted in found:
            before, now = _indexed(noted.before), _indexed(noted.now)
            added += [(collection, *term, key) for term in now - before]
            dropped += [(collection, *term, key) for term in before - now]
        if dropped:
            self._cursor.executemany(QUERIES["term_drop"], sorted(dropped))
        ADD.run(self._cursor, sorted(added))
        UNNOTE.run(self._cursor, [(noted.id,) for _, noted in found if noted.id])

    # reading

    def count(self, collection: str, organization: str | None, terms: Sequence[str]) -> int:
        more, fewer = self.behind(collection, organization, terms)
        text, values = _narrowed(collection, organization, terms)
        found: list[Row] = self._cursor.execute(QUERIES["term_count"] + text, values).fetchall()
        return int(found[0][0]) + len(more) - len(fewer)

    def behind(
        self, collection: str, organization: str | None, terms: Sequence[str]
    ) -> tuple[set[str], set[str]]:
        """Keys that carry the terms, unknown to the index, and those it has that do not."""
        wanted = set(terms)
        more: set[str] = set()
        fewer: set[str] = set()

        def carries(found: Found) -> bool:
            if found is None or organization not in (None, found[0]):
                return False
            return not wanted or wanted.issubset(found[1])

        for (of, key), noted in self._noted.items():
            if of == collection:
                was = carries(noted.before)
                if was is not carries(noted.now):
                    (fewer if was else more).add(key)
        return more, fewer


def _indexed(found: Found) -> set[tuple[str, str]]:
    """The entries that the index is to have of a document: (organization, term)."""
    if found is None:
        return set()
    organization, terms = found
    return {(organization, term) for term in (EVERY, *terms)}


def page_query(
    what: str,
    collection: str,
    organization: str | None,
    terms: Sequence[str],
    after: str | None,
    limit: int,
    descending: bool,
) -> tuple[str, list[Any]]:
    """The query of one page: a walk along the first term, in the order of the keys.

    Args:
        what: `document_page`, or `term_page` for the keys alone.
    """
    more, values = _narrowed(collection, organization, terms)
    if after is not None:
        more += " AND t.key " + ("< ?" if descending else "> ?")
        values.append(after)
    more += " ORDER BY t.key " + ("DESC" if descending else "ASC") + " LIMIT ?"
    return QUERIES[what] + more, [*values, limit]


def _narrowed(
    collection: str, organization: str | None, terms: Sequence[str]
) -> tuple[str, list[Any]]:
    """What to add to a query of one term for the organization and the other terms."""
    first, *others = list(dict.fromkeys(terms)) or [EVERY]
    more, values = "", [collection, first]
    if organization is not None:
        more += " AND t.organization = ?"
        values.append(organization)
    more += QUERIES["term_other"] * len(others)
    return more, [*values, *others]
