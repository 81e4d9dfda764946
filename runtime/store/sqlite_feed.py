"""The feed in SQLite: events in the order of their cursors, for all or for one organization.

A cursor is never given twice, whatever is removed: head and floor outlive their
rows in `meta`.

What is told twice under two names (`job:started`, `agent:started`) is one row: it has
the cursor of its last event, and the names of all in place of the name of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from apsw import Cursor

from runtime.store.contract import ANSWER_BYTES_MAX, Feed, FeedEntry, FeedEvent
from runtime.store.rules import cut_by
from runtime.store.sqlite_bulk import QUERIES, Bulk, Row, number, rows, some
from runtime.store.sqlite_meta import Meta

NEW: Final = Bulk("feed_new", 6)
DROP: Final = Bulk("feed_drop", 1)

_decode = msgspec.msgpack.Decoder(tuple[str, ...]).decode
_encode = msgspec.msgpack.Encoder().encode


class FeedTable:
    def __init__(self, cursor: Cursor, meta: Meta) -> None:
        self._cursor = cursor
        self._meta = meta
        self._new: list[tuple[FeedEvent, list[str]]] = []
        """An event, and the names it and those like it behind it have."""
        self.head: int = max(number(cursor, "feed_last") or 0, meta.number("feed_head"))
        """Cursor of the latest event."""
        self.floor = meta.number("feed_floor")
        """Cursor of the latest event that was forgotten."""

    def add(self, event: FeedEvent) -> None:
        self.head += 1
        if self._new and _are_alike(event, self._new[-1][0]):
            self._new[-1][1].append(event.event)
        else:
            self._new.append((event, [event.event]))

    def flush(self) -> None:
        written: list[Row] = []
        cursor = self.head - sum(len(names) for _, names in self._new)
        for event, names in self._new:
            cursor += len(names)
            name = names[0] if len(names) == 1 else _encode(names)
            rooms = _encode(event.rooms)
            written.append((cursor, event.organization, name, rooms, event.at_ms, event.body))
        NEW.run(self._cursor, written)
        self._new = []

    def purge(self, organization: str, limit: int) -> int:
        """Remove events of an organization, about so many; how many."""
        found = rows(self._cursor, "purge_feed", organization, limit)
        self._drop([cursor for cursor, _ in found])
        return sum(len(_names(name)) for _, name in found)

    def _drop(self, cursors: Sequence[int]) -> None:
        DROP.run(self._cursor, [(cursor,) for cursor in cursors])
        self._meta.set("feed_head", self.head)

    def old(self, before_ms: int, limit: int) -> list[int]:
        """Cursors of the oldest events, up to the first that is not so old."""
        found: list[int] = []
        for last, name, at_ms in rows(self._cursor, "prune_feed", self.floor, limit):
            if at_ms >= before_ms:
                break
            found += range(max(last - len(_names(name)), self.floor) + 1, last + 1)
        return found[:limit]

    def forget(self, cursors: Sequence[int]) -> None:
        """Remove the oldest events; cursors before the last of them are void."""
        if cursors:
            self._drop(cursors)
            self.floor = cursors[-1]
            self._meta.set("feed_floor", self.floor)

    def start(self, after: int, incarnation: str | None, present: str) -> tuple[int, bool]:
        """Where a tail from `after` begins, and whether its cursor was void."""
        if after < 0:
            return self.head, False
        void = not self.floor <= after <= self.head or incarnation not in (None, present)
        return (self.floor if void else after), void

    def look(self, after: int, limit: int, organization: str | None, reset: bool) -> Feed:
        """The page beyond `after`; its cursor passes over what is not the organization's."""
        name = "feed_page" if organization is None else "feed_page_of"
        asked = (after, limit) if organization is None else (organization, after, limit)
        found, room = some(self._cursor, QUERIES[name], asked, _size, ANSWER_BYTES_MAX)
        entries: list[FeedEntry] = []
        for last, of, name, rooms, at_ms, body in found:
            names, to = _names(name), _decode(rooms)
            for cursor, one in enumerate(names, last - len(names) + 1):
                if cursor > after:
                    entries.append(FeedEntry(cursor, of, one, to, at_ms, body))
        kept = cut_by(entries[:limit], [len(one.body) for one in entries[:limit]])
        if len(kept) == len(entries) < limit and room >= 0:
            return Feed(kept, self.head, reset)
        return Feed(kept, kept[-1].cursor if kept else after, reset)


def _are_alike(event: FeedEvent, other: FeedEvent) -> bool:
    """Whether they differ by their names alone."""
    return (
        event.body == other.body
        and event.rooms == other.rooms
        and event.at_ms == other.at_ms
        and event.organization == other.organization
    )


def _size(row: Row) -> int:
    return len(row[5])


def _names(name: str | bytes) -> tuple[str, ...]:
    """Names of the events that a row has."""
    return (name,) if isinstance(name, str) else _decode(name)
