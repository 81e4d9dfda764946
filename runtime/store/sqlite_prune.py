"""Forgetting in SQLite: walks along the old ends of the tables, a bounded piece a call.

A walk passes over what may not go yet (a dead message somebody may redeliver,
an event without a snapshot), so it has a place, and a round is over when each
walk has met what is too young.  No call looks at more rows than its limit:
it must not be felt by the commits that wait behind it.

Places are in memory only: after a restart a round begins anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from apsw import Cursor

from runtime.ids import ulid_time_of
from runtime.store.contract import DEAD_LETTERS, Swept
from runtime.store.sqlite_bulk import first, number, rows
from runtime.store.sqlite_documents import Documents
from runtime.store.sqlite_feed import FeedTable
from runtime.store.sqlite_inbox import Inbox
from runtime.store.sqlite_journal import Journals
from runtime.store.sqlite_meta import Meta
from runtime.store.sqlite_steps import Steps


class Pruner:
    def __init__(
        self,
        cursor: Cursor,
        meta: Meta,
        inbox: Inbox,
        feed: FeedTable,
        documents: Documents,
        steps: Steps,
        journals: Journals,
    ) -> None:
        self._cursor = cursor
        self._meta = meta
        self._inbox = inbox
        self._feed = feed
        self._documents = documents
        self._steps = steps
        self._kept = journals
        self._walks = (self._messages, self._events, self._journals, self._deleted)
        self._walk = 0
        """The walk that the round has come to."""
        self._place = 0
        """How far that walk has come."""
        self.rows = 0
        """Removed since the book was read."""
        self.before_ms: int | None = None
        """What the latest call was for."""

    def prune(self, before_ms: int, limit: int, ended: Sequence[str]) -> Swept:
        """One piece of a round."""
        swept = self._piece(before_ms, limit, ended)
        self.rows += swept.rows
        self.before_ms = before_ms
        return swept

    def _piece(self, before_ms: int, limit: int, ended: Sequence[str]) -> Swept:
        found = 0
        for job in ended:
            found += self._steps.drop_some(job, limit - found)
        left = limit - found
        while left > 0 and self._walk < len(self._walks):
            removed, seen = self._walks[self._walk](before_ms, left)
            found += removed
            if seen < left:
                self._walk, self._place = self._walk + 1, 0
            left -= seen
        if self._walk < len(self._walks) or left <= 0:
            return Swept(found, True)
        self._walk = 0
        return Swept(found, False)

    def _messages(self, before_ms: int, limit: int) -> tuple[int, int]:
        if self._is_young(before_ms):
            return 0, 0
        seen = rows(self._cursor, "prune_outcomes", self._place, limit)
        gone = [
            (seq, finished_ms)
            for seq, status, finished_ms in seen
            if finished_ms < before_ms and (status != "dead" or self._is_settled(seq))
        ]
        if gone:
            self._inbox.drop([seq for seq, _ in gone])
            latest = ulid_time_of(max(finished_ms for _, finished_ms in gone))
            self._meta.set("forgotten", max(self._meta.text("forgotten"), latest))
        if seen:
            self._place = seen[-1][0]
        return len(gone), len(seen)

    def _is_young(self, before_ms: int) -> bool:
        """Whether what is left of the messages is too young to go.

        It is if the first came too late, as times grow with seqs; unless that was under a clock
        that was ahead. Then older ones stand behind it, and one of them is among the samples as
        soon as they are as many as those before them.
        """
        oldest_ms = number(self._cursor, "prune_first", self._place)
        if oldest_ms is None or oldest_ms < before_ms:
            return oldest_ms is None
        return all(finished_ms >= before_ms for finished_ms in self._samples())

    def _samples(self) -> Iterator[int]:
        """When the first message beyond the place ended, and some others, ever farther apart."""
        gap, found = 0, first(self._cursor, "prune_outcomes", self._place, 1)
        while found is not None:
            yield found[2]
            found = first(self._cursor, "prune_outcomes", found[0] + gap, 1)
            gap = 2 * gap + 1

    def _is_settled(self, seq: int) -> bool:
        """Whether a dead message's letter is gone."""
        return not number(self._cursor, "prune_letter", DEAD_LETTERS, seq)

    def _events(self, before_ms: int, limit: int) -> tuple[int, int]:
        gone = self._feed.old(before_ms, limit)
        self._feed.forget(gone)
        return len(gone), len(gone)

    def _journals(self, before_ms: int, limit: int) -> tuple[int, int]:
        oldest_ms = number(self._cursor, "prune_oldest", self._place)
        if oldest_ms is None or oldest_ms >= before_ms:
            return 0, 0
        self._kept.settle()
        gone: list[tuple[int, int, int]] = []
        next_of: dict[int, int] = {}
        """Agent -> version of the oldest event that stays, if its journal goes on so."""
        seen = 0
        for id, agent, version, at_ms, covered, oldest in rows(
            self._cursor, "prune_journal", self._place, limit
        ):
            if at_ms >= before_ms:
                break
            seen, self._place = seen + 1, id
            if version <= covered and version == next_of.get(agent, oldest):
                next_of[agent] = version + 1
                gone.append((id, agent, version))
        self._kept.drop(gone)
        return len(gone), seen

    def _deleted(self, before_ms: int, limit: int) -> tuple[int, int]:
        gone = rows(self._cursor, "prune_deleted", before_ms, limit)
        self._documents.drop_rows(gone)
        return len(gone), len(gone)
