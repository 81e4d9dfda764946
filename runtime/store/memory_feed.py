"""The feed in memory: a list whose beginning is forgotten and in which an organization can lack.

Invariant: cursors grow and are never given twice, whatever is removed.
"""

from __future__ import annotations

from bisect import bisect_right

from runtime.store.contract import Feed, FeedEntry, FeedEvent
from runtime.store.rules import cut_by


class MemoryFeed:
    def __init__(self) -> None:
        self._entries: list[FeedEntry] = []
        self.head = 0
        """Cursor of the latest event."""
        self.floor = 0
        """Cursor of the latest event that was forgotten."""

    def add(self, event: FeedEvent) -> None:
        self.head += 1
        where = (self.head, event.organization, event.event, event.rooms)
        self._entries.append(FeedEntry(*where, event.at_ms, event.body))

    def start(self, after: int, incarnation: str | None, present: str) -> tuple[int, bool]:
        """Where a tail from `after` begins, and whether its cursor was void."""
        if after < 0:
            return self.head, False
        void = not self.floor <= after <= self.head or incarnation not in (None, present)
        return (self.floor if void else after), void

    def look(self, start: int, limit: int, organization: str | None, reset: bool) -> Feed:
        """The page beyond `start`; its cursor passes over what is not the organization's."""
        beyond = self._entries[bisect_right(self._entries, start, key=lambda one: one.cursor) :]
        found = [one for one in beyond if organization in (None, one.organization)][:limit]
        kept = cut_by(found, [len(one.body) for one in found])
        cursor = self.head
        if len(found) == limit or len(kept) < len(found):
            cursor = kept[-1].cursor if kept else start
        return Feed(kept, cursor, reset)

    def forgettable(self, before_ms: int) -> int:
        """How many events there are before the first that is not old enough."""
        young = (at for at, one in enumerate(self._entries) if one.at_ms >= before_ms)
        return next(young, len(self._entries))

    def forget(self, count: int) -> None:
        """Forget so many, oldest first."""
        if count:
            self.floor = self._entries[count - 1].cursor
            del self._entries[:count]

    def purge(self, organization: str) -> int:
        """Remove an organization's events; how many."""
        before = len(self._entries)
        self._entries = [one for one in self._entries if one.organization != organization]
        return before - len(self._entries)
