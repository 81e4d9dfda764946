"""The book: the SQLite store's tables and what of them is in memory, as one thing.

It knows no asyncio.  A
group of commits is judged (`rules`) against what `load` brought in, the roster
and the rows are changed in memory, and `flush` writes them; the caller owns the
transaction around that.

Invariant: between transactions memory says what the file says.  When a
transaction fails the book is thrown away and another is read from the file.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from apsw import Connection

from runtime.clock import Clock, iso
from runtime.store.contract import (
    BATCH_MAX,
    Ack,
    Activation,
    Commit,
    Committed,
    Poll,
    Refused,
    Send,
    StoredMessage,
    Swept,
)
from runtime.store.roster import Agent, Owner, Roster, in_order
from runtime.store.rules import cause_of, cut, fill, page_limit, refusal, reminder_id
from runtime.store.sqlite_agents import HIDDEN, Agents
from runtime.store.sqlite_bulk import QUERIES, rows
from runtime.store.sqlite_documents import Documents
from runtime.store.sqlite_feed import FeedTable
from runtime.store.sqlite_inbox import Inbox, Status
from runtime.store.sqlite_journal import Journals
from runtime.store.sqlite_meta import Meta
from runtime.store.sqlite_prune import Pruner
from runtime.store.sqlite_purge import Purger
from runtime.store.sqlite_steps import Steps
from runtime.store.sqlite_terms import TOGETHER


class Book:
    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        incarnation: str,
        is_awaited: Callable[[Hashable], bool],
    ) -> None:
        self.incarnation = incarnation
        self.cursor = cursor = connection.cursor()
        self._clock = clock
        self.meta = Meta(cursor)
        self.journals = Journals(cursor, self.meta)
        self.agents = Agents(cursor, self.journals)
        self.agent = self.agents.get
        self.inbox = Inbox(cursor, self.meta)
        self.received = self.inbox.received
        self.steps = Steps(cursor)
        self.documents = Documents(cursor)
        self.feed = FeedTable(cursor, self.meta)
        self.roster = Roster(self.inbox.last_seq, self.meta.number("epoch_floor"))
        self.pruner = Pruner(
            cursor, self.meta, self.inbox, self.feed, self.documents, self.steps, self.journals
        )
        self._purger = Purger(self)
        self._is_awaited = is_awaited
        self.rings: dict[Hashable, None] = {}
        """Who must look again once the transaction is durable."""
        for id, name, until_ms in rows(cursor, "owner_all"):
            self.roster.owners[id] = Owner(name, until_ms)
        pending = self.inbox.all_pending()
        found = self.agents.load_ids(recipient for _, recipient, _ in pending)
        for seq, recipient, message_id in pending:
            if not found[recipient].address.startswith(HIDDEN):
                self.roster.restore(found[recipient], message_id, seq)

    def close(self) -> None:
        self.cursor.close()

    # what the rules ask for

    @property
    def forgotten(self) -> str:
        return self.meta.text("forgotten")

    def step(self, job: str, key: str) -> tuple[str, int, bool] | None:
        return self.steps.facts(job, key)

    def document(self, collection: str, key: str) -> tuple[int, str | None]:
        return self.documents.last(collection, key)

    # writing, inside a transaction

    def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        """Judge and gather; `flush` must follow before anything else is read."""
        self._load(commits)
        now_ms = self._clock.now_ms()
        risen = self.roster.risen
        answers = [self._one(commit, now_ms) for commit in commits]
        self._ring_risen(risen)
        return answers

    def _load(self, commits: Sequence[Commit]) -> None:
        """Bring in what the rules will ask for."""
        get = self.agent
        missing: list[str] = []
        sends: list[Send] = []
        puts: list[tuple[str, str]] = []
        steps: list[tuple[str, str]] = []
        for commit in commits:
            if commit.agent and get(commit.agent) is None:
                missing.append(commit.agent)
            sends += commit.sends
            puts += [(put.collection, put.key) for put in commit.puts]
            if commit.intents or commit.results:
                steps += [(one.job, one.key) for one in commit.intents]
                steps += [(one.job, one.key) for one in commit.results]
        missing += [send.recipient for send in sends if get(send.recipient) is None]
        if missing:
            self.agents.load(missing)
        wanted = [
            (send.message_id, agent.row, send.recipient)
            for send in sends
            if (agent := get(send.recipient)) is not None
        ]
        if wanted:
            self.inbox.load(wanted)
        if steps:
            self.steps.load(steps)
        if puts:
            self.documents.load(puts)

    def _one(self, commit: Commit, now_ms: int) -> Committed | Refused:
        refused = refusal(commit, self)
        if refused is not None:
            return refused
        version, sends, seqs = 0, commit.sends, []
        if commit.agent is not None:
            agent = self.agent(commit.agent)
            assert agent is not None
            acks = commit.acks
            if commit.at_once:
                seqs.append(self._handle(agent, sends[0], acks[0], now_ms))
                sends, acks = sends[1:], acks[1:]
            self._turn(agent, commit, acks, now_ms)
            version = agent.version
        for put in commit.puts:
            self.documents.put(put, now_ms)
        seqs += [self._send(send, now_ms) for send in sends]
        for event in commit.feed:
            self.rings["feed"] = None
            self.feed.add(event)
        return Committed(version, tuple(seqs), self.feed.head)

    def _turn(self, agent: Agent, commit: Commit, acks: Sequence[Ack], now_ms: int) -> None:
        if commit.events:
            self.journals.record(agent, commit.events, now_ms, cause_of(commit))
        if commit.snapshot is not None:
            self.agents.save(agent, commit.snapshot)
        for ack in acks:
            self._finish(agent, ack.message_id, "processed", now_ms, ack.reply, None)
        for bury in commit.buries:
            self._finish(agent, bury.message_id, "dead", now_ms, None, bury.error)
        for retry in commit.retries:
            self.inbox.retry(agent.pending[retry.message_id], retry)
        for remind in commit.reminders:
            self.agents.remind(agent, remind)
        for intent in commit.intents:
            self.steps.begin(intent, agent.address, agent.epoch, now_ms)
        for result in commit.results:
            self.steps.end(result, now_ms)

    def _finish(
        self,
        agent: Agent,
        message_id: str,
        status: Status,
        now_ms: int,
        reply: bytes | None,
        error: str | None,
    ) -> None:
        seq = self.roster.finished(agent, message_id)
        self.inbox.finish(seq, status, now_ms, reply, error)
        ring = ("outcome", agent.address, message_id)
        if self._is_awaited(ring):
            self.rings[ring] = None

    def _handle(self, agent: Agent, send: Send, ack: Ack, now_ms: int) -> int:
        """A message that is handled at once: nobody can wait for it yet; its seq."""
        seq = self.roster.head_seq + 1
        self.roster.passed(seq)
        self.inbox.add(send, seq, agent.row, now_ms)
        self.inbox.finish(seq, "processed", now_ms, ack.reply, None)
        return seq

    def _send(self, send: Send, now_ms: int) -> int:
        agent = self.agent(send.recipient) or self.agents.create(send.recipient)
        seq = self.roster.head_seq + 1
        self.inbox.add(send, seq, agent.row, now_ms)
        self.inbox.keep(send, seq, now_ms)
        self.roster.arrived(agent, send.message_id, seq, now_ms)
        if agent.owner is not None:
            self.rings[("poll", agent.owner)] = None
        return seq

    def flush(self) -> None:
        """Write all that was gathered."""
        self.agents.flush()
        self.journals.flush()
        self.inbox.flush()
        self.steps.flush()
        self.documents.flush()
        self.feed.flush()
        self.inbox.settle(self.roster.head_seq)

    @property
    def is_behind(self) -> bool:
        """Whether there is anything to catch up with."""
        return self.documents.terms.is_behind

    def catch_up(self) -> None:
        """Do a piece of what is put off while others wait."""
        self.documents.terms.catch_up(TOGETHER)

    def prune(self, before_ms: int, limit: int, ended: Sequence[str]) -> Swept:
        return self.pruner.prune(before_ms, limit, ended)

    def purge(self, organization: str, limit: int) -> Swept:
        return self._purger.purge(organization, limit)

    def register(self, owner: str, name: str, lease_s: float) -> str:
        risen = self.roster.risen
        until_ms = self._lease_end(lease_s)
        for gone in self.roster.register(owner, name, until_ms):
            self.cursor.execute(QUERIES["owner_drop"], (gone,))
        self.cursor.execute(QUERIES["owner_set"], (owner, name, until_ms))
        self._ring_risen(risen)
        return self.incarnation

    def renew(self, owner: str, lease_s: float) -> bool:
        until_ms = self._lease_end(lease_s)
        if not self.roster.renew(owner, until_ms):
            return False
        self.cursor.execute(QUERIES["owner_set"], (owner, self.roster.owners[owner].name, until_ms))
        if not lease_s:  # a lapse that no alarm is set to
            self.rings["poll"] = None
        return True

    def claim(self, owner: str, limit: int, named: Sequence[str] | None) -> list[Activation]:
        self.fire_due()
        now_ms = self._clock.now_ms()
        limit = page_limit(limit)
        if named is None:
            chosen = self.roster.claimable(owner, limit, now_ms)
        else:
            named = in_order(named)
            self.agents.load(named)
            known = [self.agents.get(one) or Agent(one) for one in named]
            chosen = [one for one in known if self.roster.takeable(one, owner, now_ms)][:limit]
        return fill(self._activate(agent, owner) for agent in chosen)

    def _activate(self, agent: Agent, owner: str) -> Activation:
        if not agent.row:
            agent = self.agents.create(agent.address)
        abandoned = agent.owner is not None
        self.roster.take(agent, owner)
        self.agents.hold(agent)
        version, snapshot = self.agents.snapshot(agent)
        tail = self.journals.tail(agent.row, version, agent.version - version)
        waiting = list(agent.pending.values())[:BATCH_MAX]
        messages = cut(self.inbox.by_seq(waiting))
        return Activation(
            agent.address, agent.epoch, agent.version, version, snapshot, tuple(tail), messages,
            abandoned,
        )  # fmt: skip

    def release(self, owner: str, named: Sequence[str]) -> None:
        risen = self.roster.risen
        self.agents.load(named)
        for address in named:
            agent = self.agents.get(address)
            if agent is not None and agent.owner == owner:
                self.roster.drop(agent)
                self.agents.hold(agent)
        self._ring_risen(risen)

    def fire_due(self) -> None:
        """Put the reminders that are due into their inboxes."""
        now_ms = self._clock.now_ms()
        risen = self.roster.risen
        while due := self.agents.take_due(now_ms, BATCH_MAX):
            self.agents.load(address for address, _, _, _ in due)
            sends = [
                Send(reminder_id(key, due_ms), address, address, body)
                for address, key, due_ms, body in due
            ]
            self._load([Commit("", sends=tuple(sends))])
            for send in sends:
                if (send.recipient, send.message_id) not in self.received:
                    self._send(send, now_ms)
            self.flush()
        self._ring_risen(risen)

    def wake(self) -> None:
        """What changes by itself has: fire what is due, see which leases have lapsed.

        Where nobody polls, the next poll or claim does it.
        """
        if self._is_awaited("poll"):
            self.fire_due()
            self.roster.lapse(self._clock.now_ms())
            self.rings["poll"] = None

    def _ring_risen(self, before: int) -> None:
        if self.roster.risen > before:
            self.rings["poll"] = None

    def _lease_end(self, lease_s: float) -> int:
        return self._clock.now_ms() + round(lease_s * 1000)

    # reading, between transactions

    def known(self, address: str) -> Agent | None:
        """The agent, read from the table if it is not cached."""
        self.agents.load((address,))
        return self.agents.get(address)

    def waiting(self, address: str, after: int, limit: int) -> list[StoredMessage]:
        """Pending messages of an agent beyond `after`, as many as fit an answer."""
        agent = self.known(address)
        if agent is None:
            return []
        seqs = [seq for seq in agent.pending.values() if seq > after]
        return list(cut(self.inbox.by_seq(seqs[:limit])))

    def look(self, owner: str, after: int, limit: int) -> tuple[Poll, bool]:
        """What a poll would answer now, and whether that is worth answering at once."""
        now_ms = self._clock.now_ms()
        found = self.roster.arrivals(owner, after, limit)
        messages = cut(self.inbox.by_seq([seq for seq, _, _ in found]))
        cursor = self.roster.head_seq
        if len(found) == limit or len(messages) < len(found):
            cursor = messages[-1].seq if messages else after
        ready = self.roster.ready(owner, now_ms)
        enough = self.roster.is_news(owner, bool(messages), ready, now_ms)
        return Poll(messages, cursor, page_limit(ready)), enough

    def details(self) -> dict[str, str]:
        """Sizes, and how far has been forgotten, for health."""
        found = {
            "messages": self.roster.head_seq,
            "pending": self.roster.pending,
            "events": self.feed.head,
            "forgotten_rows": self.pruner.rows,
            "kept_since": iso(before_ms) if (before_ms := self.pruner.before_ms) else "",
        }
        return {name: str(value) for name, value in found.items()}

    def alive(self) -> tuple[str, ...]:
        """Owners whose lease is live, for health."""
        return self.roster.alive(self._clock.now_ms())

    def next_event_ms(self) -> int | None:
        """When something changes by itself: a reminder is due, a lease lapses."""
        moments = (self.agents.next_due_ms, self.roster.next_lapse_ms())
        return min((at for at in moments if at is not None), default=None)
