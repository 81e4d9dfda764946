"""Journals in SQLite, and the index of them, which follows behind.

An event is appended to `journal`, next to the one before it, whoever's it is.
`journal_of`, which knows whose event is where, has a place for each agent: to
write it with every event would dirty a page for each agent of a group.  So it
knows the events up to `meta.journal_settled` only; a few thousand at a time are
settled together, sorted, and those that are not are known in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from apsw import Cursor

from runtime.store.contract import ANSWER_BYTES_MAX, Event, JournalEvent
from runtime.store.roster import Agent
from runtime.store.sqlite_bulk import QUERIES, Bulk, Row, number, rows, some
from runtime.store.sqlite_meta import Meta

NEW: Final = Bulk("journal_new", 8)
BY_ID: Final = Bulk("journal_by_id", 1)
DROP: Final = Bulk("journal_drop", 1)

SETTLE_EVERY: Final = 4_096
"""Events that are settled together; what is known of them in memory is bounded by it."""


class Journals:
    def __init__(self, cursor: Cursor, meta: Meta) -> None:
        self._cursor = cursor
        self._meta = meta
        self._settled = meta.number("journal_settled")
        """Id up to which `journal_of` is complete."""
        self._last_id = max(number(cursor, "journal_last") or 0, self._settled)
        """The greatest id that was ever given."""
        self._recent: dict[int, list[tuple[int, int]]] = {}
        """Agent's row -> (version, id) of its events that are not settled, in order."""
        self._new: list[Row] = []
        for id, agent, version in rows(cursor, "journal_recent", self._settled):
            self._recent.setdefault(agent, []).append((version, id))

    def version(self, agent: int, settled: int) -> int:
        """The version of an agent of which the tables know the version `settled`."""
        recent = self._recent.get(agent)
        return recent[-1][0] if recent else settled

    def record(self, agent: Agent, events: Iterable[Event], now_ms: int, cause: str | None) -> None:
        recent = self._recent.setdefault(agent.row, [])
        for event in events:
            agent.version += 1
            self._last_id += 1
            recent.append((agent.version, self._last_id))
            self._new.append(
                (self._last_id, agent.row, agent.version, event.name, event.body, event.schema,
                 now_ms, cause)
            )  # fmt: skip

    def flush(self) -> None:
        """Write what was recorded, and settle once enough has gathered."""
        NEW.run(self._cursor, self._new)
        self._new = []
        if self._last_id - self._settled >= SETTLE_EVERY:
            self.settle()

    def settle(self) -> None:
        """Bring `journal_of` up to date, within the transaction."""
        if self._recent:
            self._cursor.execute(QUERIES["settle_journal"], (self._settled,))
            self._settled = self._last_id
            self._meta.set("journal_settled", self._settled)
            self._recent = {}

    def tail(self, agent: int, after: int, limit: int) -> list[JournalEvent]:
        """The events beyond a version, however long they are."""
        if not limit:  # as of one that is new, and of one whose snapshot is the latest
            return []
        found = rows(self._cursor, "journal_page", agent, after, limit)
        found += BY_ID.read(self._cursor, self._unsettled(agent, after, limit - len(found)))
        return [JournalEvent(*row) for row in found]

    def page(self, agent: int, after: int, limit: int) -> list[JournalEvent]:
        """Those of them that fit an answer."""
        text, asked = QUERIES["journal_page"], (agent, after, limit)
        found, room = some(self._cursor, text, asked, _size, ANSWER_BYTES_MAX)
        if room >= 0:
            recent = self._unsettled(agent, after, limit - len(found))
            found += BY_ID.some(self._cursor, recent, _size, room)[0]
        return [JournalEvent(*row) for row in found]

    def _unsettled(self, agent: int, after: int, limit: int) -> list[tuple[int]]:
        recent = self._recent.get(agent, ())
        return [(id,) for version, id in recent if version > after][:limit]

    def drop(self, gone: Sequence[tuple[int, int, int]]) -> None:
        """Remove settled events (id, agent's row, version); their ids are never given again."""
        DROP.run(self._cursor, [(id,) for id, _, _ in gone])
        places = [(agent, version) for _, agent, version in gone]
        self._cursor.executemany(QUERIES["journal_of_drop"], places)


def _size(row: Row) -> int:
    return len(row[2])
