"""Agents in SQLite: their rows, snapshots and reminders.

Agents are cached: with one writer what is here is what the table says.  At
most `AGENTS_CACHED_MAX` without pending messages are kept; one that has any is
kept by the roster as well and must stay.  Rows of a group wait for `flush`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apsw import Cursor

from runtime.store.contract import Remind, Snapshot
from runtime.store.roster import Agent
from runtime.store.sqlite_bulk import QUERIES, Bulk, Row, first, number, rows
from runtime.store.sqlite_journal import Journals

AGENTS_CACHED_MAX: Final = 200_000
HIDDEN: Final = "~/"
"""Addresses of agents that are being purged begin so, and no other."""

BY_ADDRESS: Final = Bulk("agent_by_address", 1)
BY_ID: Final = Bulk("agent_by_id", 1)
NEW: Final = Bulk("agent_new", 2)
SNAPSHOT: Final = Bulk("snapshot_set", 4)
REMIND: Final = Bulk("reminder_set", 4)


class Agents:
    def __init__(self, cursor: Cursor, journals: Journals) -> None:
        self._cursor = cursor
        self._journals = journals
        self._cached: dict[str, Agent] = {}
        self.get = self._cached.get
        """The agent of an address, if it was loaded before and exists."""
        self._last_id: int = number(cursor, "agent_last") or 0
        self._new: list[Row] = []
        self._held: list[Row] = []
        self._snapshots: dict[int, Row] = {}
        self._reminders: dict[tuple[int, str], tuple[int, bytes] | None] = {}
        self.next_due_ms: int | None = number(self._cursor, "reminder_next")
        """When to look for due reminders; never later than the first of them."""

    def load(self, addresses: Iterable[str]) -> None:
        """Bring agents into the cache, those of them that exist."""
        cached = self._cached
        missing = {address for address in addresses if address not in cached}
        if missing:
            self._keep(BY_ADDRESS.read(self._cursor, [(address,) for address in missing]))

    def load_ids(self, ids: Iterable[int]) -> dict[int, Agent]:
        """Bring the agents of these rows into the cache."""
        found = BY_ID.read(self._cursor, [(id,) for id in set(ids)])
        self._keep(found)
        return {row[0]: self._cached[row[1]] for row in found}

    def _keep(self, found: list[Row]) -> None:
        for id, address, epoch, owner, settled in found:
            version = self._journals.version(id, settled or 0)
            self._cached[address] = Agent(address, epoch, version, owner, id)

    def create(self, address: str) -> Agent:
        self._last_id += 1
        agent = self._cached[address] = Agent(address, row=self._last_id)
        self._new.append((agent.row, address))
        return agent

    def hide(self, agent: Agent) -> None:
        """Give it an address that no name can reach, and nothing to be reminded of."""
        del self._cached[agent.address]
        self._cursor.execute(QUERIES["purge_hide"], (f"{HIDDEN}{agent.row}", agent.row))
        self._cursor.execute(QUERIES["purge_reminders"], (agent.row,))

    def trim(self) -> None:
        """Forget the agents cached first, down to nine tenths of the bound."""
        if len(self._cached) > AGENTS_CACHED_MAX:
            kept = AGENTS_CACHED_MAX * 9 // 10
            idle = [one for one in self._cached.values() if not one.pending]
            for agent in idle[: len(self._cached) - kept]:
                del self._cached[agent.address]

    # writing

    def save(self, agent: Agent, snapshot: Snapshot) -> None:
        self._snapshots[agent.row] = (agent.row, agent.version, snapshot.body, snapshot.schema)

    def hold(self, agent: Agent) -> None:
        """Write the epoch and the holder that the roster has given."""
        self._held.append((agent.epoch, agent.owner, agent.row))

    def remind(self, agent: Agent, remind: Remind) -> None:
        due_ms = remind.due_ms
        if due_ms is None:
            self._reminders[agent.row, remind.key] = None
            return
        self._reminders[agent.row, remind.key] = (due_ms, remind.body)
        if self.next_due_ms is None or due_ms < self.next_due_ms:
            self.next_due_ms = due_ms

    def take_due(self, now_ms: int, limit: int) -> list[tuple[str, str, int, bytes]]:
        """Remove and return due reminders (address, key, due time, body), first due first."""
        if self.next_due_ms is None or self.next_due_ms > now_ms:
            return []
        found = rows(self._cursor, "reminder_due", now_ms, limit)
        self._cursor.executemany(
            QUERIES["reminder_drop"], [(agent, key) for _, _, key, agent, _ in found]
        )
        self.next_due_ms = number(self._cursor, "reminder_next")
        return [(address, key, due_ms, body) for due_ms, address, key, _, body in found]

    def flush(self) -> None:
        """Write what changed."""
        cursor = self._cursor
        NEW.run(cursor, self._new)
        if self._held:
            cursor.executemany(QUERIES["agent_hold"], self._held)
        SNAPSHOT.run(cursor, list(self._snapshots.values()))
        if self._reminders:
            self._flush_reminders()
        self._new, self._held, self._snapshots = [], [], {}

    def _flush_reminders(self) -> None:
        changed = self._reminders.items()
        gone = [where for where, value in changed if value is None]
        self._cursor.executemany(QUERIES["reminder_drop"], gone)
        REMIND.run(
            self._cursor,
            [(agent, key, *value) for (agent, key), value in changed if value is not None],
        )
        self._reminders = {}

    # reading

    def snapshot(self, agent: Agent) -> tuple[int, Snapshot | None]:
        """The version it was taken at and the snapshot; (0, None) when there is none."""
        row = first(self._cursor, "snapshot_get", agent.row)
        return (0, None) if row is None else (row[0], Snapshot(row[1], row[2]))
