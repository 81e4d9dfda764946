"""The feed in SQLite: events in the order of their cursors, for all or for one organization."""

from __future__ import annotations

from sqlite3 import Cursor
from typing import Final

import msgspec

from runtime.store.contract import Feed, FeedEntry, FeedEvent
from runtime.store.sqlite_bulk import Bulk, Row, number, rows

NEW: Final = Bulk("feed_new", 6)

_decode_rooms = msgspec.msgpack.Decoder(tuple[str, ...]).decode
_encode_rooms = msgspec.msgpack.Encoder().encode


class FeedTable:
    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._new: list[Row] = []
        self.head: int = number(cursor, "feed_last") or 0

    def add(self, event: FeedEvent) -> None:
        self.head += 1
        rooms = _encode_rooms(event.rooms)
        self._new.append(
            (self.head, event.organization, event.event, rooms, event.at_ms, event.body)
        )

    def flush(self) -> None:
        NEW.run(self._cursor, self._new)
        self._new = []

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
