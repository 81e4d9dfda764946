"""Purging in SQLite: an organization's agents vanish at once, their rows piece by piece.

An agent is fenced and hidden first: it gets an address that no name can reach
and leaves the roster, so a new agent of its name finds nothing of it.  Then
its rows go, and what else is the organization's.  Everything is found by an
index, except the messages it sent to the system: those are looked for along
the system's inboxes, from a place that is kept in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.ids import SYSTEM
from runtime.store.contract import Swept
from runtime.store.roster import Agent
from runtime.store.sqlite_agents import HIDDEN
from runtime.store.sqlite_bulk import QUERIES, number, rows

if TYPE_CHECKING:
    from runtime.store.sqlite_book import Book


def addresses(organization: str) -> tuple[str, str]:
    """From and to (not included) of an organization's addresses."""
    return f"{organization}/", f"{organization}0"  # `0` comes next after `/`


class Purger:
    def __init__(self, book: Book) -> None:
        self._book = book
        self._cursor = book.cursor
        self._places: dict[tuple[str, int], int] = {}
        """(organization, agent of the system) -> seq up to which its inbox was looked through."""
        self._rows = 0
        """Removed by the present call."""

    def purge(self, organization: str, limit: int) -> Swept:
        """Remove about `limit` rows, in the order that keeps everything consistent."""
        self._rows = 0
        left = limit
        for work in (
            self._hide, self._empty_hidden, self._documents, self._steps, self._feed, self._sent,
        ):  # fmt: skip
            while left > 0 and (done := work(organization, left)):
                left -= done
        if left > 0:
            self._places = {at: seq for at, seq in self._places.items() if at[0] != organization}
        return Swept(self._rows, left <= 0)

    # Each does a piece of work of about `limit` rows and answers how much it was; 0: none is left.

    def _hide(self, organization: str, limit: int) -> int:
        """Fence agents and let them vanish with their pending messages and reminders."""
        book = self._book
        found = self._agents(organization, limit)
        for agent in found:
            book.rings |= {("outcome", agent.address, id): None for id in agent.pending}
            book.roster.purge(agent)
            book.agents.hide(agent)
        book.meta.set("epoch_floor", book.roster.epoch_floor)
        book.inbox.settle(book.roster.head_seq, at_once=bool(found))
        if found:
            book.journals.settle()
        return len(found)

    def _empty_hidden(self, _organization: str, limit: int) -> int:
        """Remove what the hidden agents had, and those that have nothing any more."""
        done = 0
        where = addresses(HIDDEN.removesuffix("/"))
        for agent, _ in rows(self._cursor, "purge_agents", *where, limit):
            done += self._empty(agent, limit - done)
            if done >= limit:
                break
        return done

    def _empty(self, agent: int, limit: int) -> int:
        seqs = [seq for (seq,) in rows(self._cursor, "purge_inbox", agent, limit)]
        self._book.inbox.drop(seqs)
        events = rows(self._cursor, "purge_journal", agent, limit - len(seqs))
        self._book.journals.drop(events)
        done = len(seqs) + len(events)
        if done < limit:
            for name in ("purge_snapshot", "purge_reminders", "purge_agent"):
                self._cursor.execute(QUERIES[name], (agent,))
            done += 1
        self._rows += done
        return done

    def _documents(self, organization: str, limit: int) -> int:
        self._book.documents.terms.catch_up()
        done = 0
        collection = number(self._cursor, "purge_collection", "")
        while collection is not None and done < limit:
            found = rows(self._cursor, "purge_documents", collection, organization, limit - done)
            self._book.documents.drop([(str(collection), key) for (key,) in found])
            done += len(found)
            collection = number(self._cursor, "purge_collection", collection)
        deleted = rows(self._cursor, "purge_deleted", organization, limit - done)
        self._book.documents.drop_rows(deleted)
        self._rows += done + len(deleted)
        return done + len(deleted)

    def _steps(self, organization: str, limit: int) -> int:
        found = rows(self._cursor, "purge_steps", *addresses(organization), limit)
        self._book.steps.drop(found)
        self._rows += len(found)
        return len(found)

    def _feed(self, organization: str, limit: int) -> int:
        gone = self._book.feed.purge(organization, limit)
        self._rows += gone
        return gone

    def _sent(self, organization: str, limit: int) -> int:
        """Look for messages from the organization in the inboxes of the system."""
        self._book.inbox.settle(self._book.roster.head_seq, at_once=True)
        seen = 0
        for agent in self._agents(SYSTEM, limit):
            seen += self._sent_to(agent, organization, limit - seen)
        return seen

    def _agents(self, organization: str, limit: int) -> list[Agent]:
        agents = self._book.agents
        found = rows(self._cursor, "purge_agents", *addresses(organization), limit)
        agents.load([address for _, address in found])
        return [agent for _, address in found if (agent := agents.get(address)) is not None]

    def _sent_to(self, agent: Agent, organization: str, limit: int) -> int:
        book, where = self._book, (organization, agent.row)
        found = rows(
            self._cursor, "purge_senders", agent.row, self._places.get(where, 0), limit
        )  # fmt: skip
        gone = [row for row in found if row[1].startswith(f"{organization}/")]
        for _, _, message_id in gone:
            if message_id in agent.pending:
                book.rings["outcome", agent.address, message_id] = None
                book.roster.finished(agent, message_id)
        book.inbox.drop([seq for seq, _, _ in gone])
        if found:
            self._places[where] = found[-1][0]
        self._rows += len(gone)
        return len(found)
