"""What the memory store keeps, and how of it is forgotten.

    agent, journal, snapshot, inbox (`messages`, in order in `history`), reminder,
    step, document, feed: as the contract names them

Invariant: an agent's journal is without gaps and, with its snapshot, reaches to
its version.  Writing is `memory`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from runtime.ids import SYSTEM, ulid_time_of
from runtime.store.contract import (
    DEAD_LETTERS,
    JournalEvent,
    Snapshot,
    StoredMessage,
    Swept,
)
from runtime.store.documents import Documents
from runtime.store.memory_feed import MemoryFeed
from runtime.store.memory_steps import MemorySteps
from runtime.store.roster import Agent, Roster


class Tables:
    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self.messages: dict[str, dict[str, StoredMessage]] = {}
        self.history: dict[str, list[str]] = {}
        """Message ids of an inbox, in order of seq."""
        self.received: set[tuple[str, str]] = set()
        self.journals: dict[str, list[JournalEvent]] = {}
        self.snapshots: dict[str, tuple[int, Snapshot]] = {}
        self.reminders: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.steps = MemorySteps()
        self.documents = Documents()
        self.feed = MemoryFeed()
        self.forgotten = ""
        """See `rules.View`."""

    def events(self, agent: str, after: int) -> list[JournalEvent]:
        """The journal beyond a version."""
        journal = self.journals.get(agent, [])
        return journal[max(0, after - journal[0].version + 1) :] if journal else []

    # forgetting

    def prune(self, before_ms: int, limit: int, ended: Sequence[str]) -> Swept:
        steps = self.steps.of_jobs(list(dict.fromkeys(ended)))
        for job, key in steps[:limit]:
            self.steps.drop(job, key)
        left = limit - len(steps[:limit])
        messages = list(islice(self._old_messages(before_ms), left + 1))
        for message in messages[:left]:
            self._forget(message)
            assert message.finished_ms is not None
            self.forgotten = max(self.forgotten, ulid_time_of(message.finished_ms))
        left -= len(messages[:left])
        feed = self.feed.forgettable(before_ms)
        self.feed.forget(min(feed, left))
        left -= min(feed, left)
        events = list(islice(self._old_events(before_ms), left + 1))
        for agent in events[:left]:
            del self.journals[agent][0]
        left -= len(events[:left])
        deleted = self.documents.forgettable(before_ms)
        for where in deleted[:left]:
            self.documents.forget(where)
        left -= len(deleted[:left])
        found = len(steps) + len(messages) + feed + len(events) + len(deleted)
        return Swept(limit - left, found > limit - left)

    def _old_messages(self, before_ms: int) -> Iterator[StoredMessage]:
        everything = [one for box in self.messages.values() for one in box.values()]
        for one in sorted(everything, key=lambda message: message.seq):
            if one.finished_ms is not None and one.finished_ms < before_ms:
                letter = f"{one.recipient}/{one.message_id}"
                if one.status != "dead" or self.documents.get(DEAD_LETTERS, letter) is None:
                    yield one

    def _old_events(self, before_ms: int) -> Iterator[str]:
        """The agent of each event that may go."""
        for agent, journal in self.journals.items():
            covered, _ = self.snapshots.get(agent, (0, None))
            for event in journal:
                if event.version > covered or event.at_ms >= before_ms:
                    break
                yield agent

    def _forget(self, message: StoredMessage) -> None:
        del self.messages[message.recipient][message.message_id]
        self.history[message.recipient].remove(message.message_id)
        self.received.remove((message.recipient, message.message_id))

    def sizes(self, roster: Roster) -> dict[str, str]:
        """What was ever accepted and told, and what is pending, for health."""
        found = {"messages": roster.head_seq, "pending": roster.pending, "events": self.feed.head}
        return {name: str(value) for name, value in found.items()}

    # purging

    def purge(self, organization: str, limit: int, roster: Roster) -> Swept:
        """Remove agents up to about `limit` rows, and with the last of them the rest."""
        prefix = organization + "/"
        agents = [agent for address, agent in self.agents.items() if address.startswith(prefix)]
        rows = 0
        for agent in agents:
            if rows >= limit:
                return Swept(rows, True)
            roster.purge(agent)
            rows += self._purge_agent(agent.address)
        for message in self._to_system(prefix):
            box = self.agents[message.recipient]
            if message.message_id in box.pending:
                roster.finished(box, message.message_id)
            self._forget(message)
            rows += 1
        for job, key in (begun := self.steps.of_agents(prefix)):
            self.steps.drop(job, key)
        rows += len(begun)
        rows += self.documents.purge(organization) + self.feed.purge(organization)
        return Swept(rows, False)

    def _purge_agent(self, address: str) -> int:
        del self.agents[address]
        for message_id in self.history.pop(address, ()):
            self.received.remove((address, message_id))
        rows = 1 + len(self.messages.pop(address, ())) + len(self.journals.pop(address, ()))
        self.snapshots.pop(address, None)
        for agent, key in [where for where in self.reminders if where[0] == address]:
            del self.reminders[agent, key]
        return rows

    def _to_system(self, prefix: str) -> list[StoredMessage]:
        return [
            message
            for recipient, box in self.messages.items()
            if recipient.startswith(SYSTEM + "/")
            for message in box.values()
            if message.sender.startswith(prefix)
        ]
