"""The feed in SQLite: events in the order of their cursors, for all or for one organization.

A cursor is never given twice, whatever is removed: head and floor outlive their
rows in `meta`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from apsw import Cursor

from runtime.store.contract import Feed, FeedEntry, FeedEvent
from runtime.store.sqlite_bulk import Bulk, Row, number, rows
from runtime.store.sqlite_meta import Meta

NEW: Final = Bulk("feed_new", 6)
DROP: Final = Bulk("feed_drop", 1)

_decode_rooms = msgspec.msgpack.Decoder(tuple[str, ...]).decode
_encode_rooms = msgspec.msgpack.Encoder().encode


class FeedTable:
    def __init__(self, cursor: Cursor, meta: Meta) -> None:
        self._cursor = cursor
        self._meta = meta
        self._new: list[Row] = []
        self.head: int = max(number(cursor, "feed_last") or 0, meta.number("feed_head"))
        """Cursor of the latest event."""
        self.floor = meta.number("feed_floor")
        """Cursor of the latest event that was forgotten."""

    def add(self, event: FeedEvent) -> None:
        self.head += 1
        rooms = _encode_rooms(event.rooms)
        self._new.append(
            (self.head, event.organization, event.event, rooms, event.at_ms, event.body)
        )

    def flush(self) -> None:
        NEW.run(self._cursor, self._new)
        self._new = []

    def drop(self, cursors: Sequence[int]) -> None:
        """Remove events, wherever they are."""
        DROP.run(self._cursor, [(cursor,) for cursor in cursors])
        self._meta.set("feed_head", self.head)

    def forget(self, cursors: Sequence[int]) -> None:
        """Remove the oldest events; cursors before the last of them are void."""
        if cursors:
            self.drop(cursors)
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
        if organization is None:
            found = rows(self._cursor, "feed_page", after, limit)
        else:
            found = rows(self._cursor, "feed_page_of", organization, after, limit)
        entries = tuple(
            [
                FeedEntry(at, of, event, _decode_rooms(rooms), at_ms, body)
                for at, of, event, rooms, at_ms, body in found
            ]
        )
        if len(entries) < limit:
            return Feed(entries, self.head, reset)
        return Feed(entries, entries[-1].cursor if entries else after, reset)
