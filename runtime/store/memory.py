"""A store in memory: the whole contract, no durability; for tests and simulation.

It survives nothing.  Every method does its work between two awaits, so a
commit is atomic because asyncio is.  The rules are `rules`, the claims and
polls `roster`, the waiting `parking`, what is kept and forgotten `memory_tables`;
what remains here is how it is written and read.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from runtime.clock import Clock
from runtime.store.contract import (
    Ack,
    Activation,
    Commit,
    Committed,
    Document,
    Feed,
    Health,
    JournalEvent,
    Poll,
    Refused,
    Remind,
    Send,
    Step,
    StoredMessage,
    Swept,
)
from runtime.store.memory_tables import Tables
from runtime.store.parking import Alarm, Parking
from runtime.store.roster import Agent, Roster, in_order
from runtime.store.rules import (
    cause_of,
    check_call,
    check_limit,
    check_many,
    check_purge,
    check_room,
    cut,
    cut_by,
    fill,
    page_limit,
    refusal,
    reminder_id,
)


class MemoryStore:
    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        self.incarnation = random_bytes(8).hex()
        self._clock = clock
        self._roster = Roster()
        self._parking = Parking()
        self._alarm = Alarm(clock, lambda: self._parking.ring("poll"))
        self._tables = Tables()
        self.agent = self._tables.agents.get
        self.received = self._tables.received
        self._accepted = 0
        self._refused: Counter[str] = Counter()

    # what the rules ask for

    @property
    def forgotten(self) -> str:
        return self._tables.forgotten

    def step(self, job: str, key: str) -> tuple[str, int, bool] | None:
        return self._tables.steps.facts(job, key)

    def document(self, collection: str, key: str) -> tuple[int, str | None]:
        return self._tables.documents.last(collection, key)

    # writing

    async def commit(self, commits: Sequence[Commit]) -> list[Committed | Refused]:
        self._parking.check_open()
        check_call(commits)
        check_room(commits, self._roster.pending)
        return [self._one(commit) for commit in commits]

    def _one(self, commit: Commit) -> Committed | Refused:
        refused = refusal(commit, self)
        if refused is not None:
            self._refused[refused.reason] += 1
            return refused
        self._accepted += 1
        now_ms = self._clock.now_ms()
        version = 0
        sends, acks, seqs = commit.sends, commit.acks, []
        if commit.agent is not None:
            agent = self._tables.agents[commit.agent]
            if commit.at_once:
                seqs.append(self._handle(agent, sends[0], acks[0], now_ms))
                sends, acks = sends[1:], acks[1:]
            version = self._write_agent(agent, commit, acks, now_ms)
        for put in commit.puts:
            self._tables.documents.put(put, now_ms)
        seqs += [self._send(send, now_ms) for send in sends]
        for event in commit.feed:
            self._tables.feed.add(event)
            self._parking.ring("feed")
        return Committed(version, tuple(seqs), self._tables.feed.head)

    def _write_agent(self, agent: Agent, commit: Commit, acks: Sequence[Ack], now_ms: int) -> int:
        journal = self._tables.journals.setdefault(agent.address, [])
        cause = cause_of(commit)
        for event in commit.events:
            agent.version += 1
            journal.append(
                JournalEvent(agent.version, event.name, event.body, event.schema, now_ms, cause)
            )
        if commit.snapshot is not None:
            self._tables.snapshots[agent.address] = (agent.version, commit.snapshot)
        for ack in acks:
            self._finish(agent, ack.message_id, "processed", now_ms, reply=ack.reply)
        for bury in commit.buries:
            self._finish(agent, bury.message_id, "dead", now_ms, error=bury.error)
        for retry in commit.retries:
            self._update(
                agent,
                retry.message_id,
                attempts=self._tables.messages[agent.address][retry.message_id].attempts + 1,
                not_before_ms=retry.not_before_ms,
                error=retry.error,
            )
        for remind in commit.reminders:
            self._remind(agent.address, remind)
        for intent in commit.intents:
            self._tables.steps.begin(agent, intent, now_ms)
        for result in commit.results:
            self._tables.steps.end(result, now_ms)
        return agent.version

    def _send(self, send: Send, now_ms: int) -> int:
        agent = self._tables.agents.setdefault(send.recipient, Agent(send.recipient))
        seq = self._keep(send, now_ms)
        risen = self._roster.risen
        self._roster.arrived(agent, send.message_id, seq, now_ms)
        self._parking.ring("poll" if self._roster.risen > risen else ("poll", agent.owner))
        return seq

    def _handle(self, agent: Agent, send: Send, ack: Ack, now_ms: int) -> int:
        """A message that is handled at once: nobody can wait for it yet; its seq."""
        seq = self._keep(send, now_ms)
        self._roster.passed(seq)
        self._update(
            agent, send.message_id, status="processed", finished_ms=now_ms, reply=ack.reply
        )
        return seq

    def _keep(self, send: Send, now_ms: int) -> int:
        seq = self._roster.head_seq + 1
        self.received.add((send.recipient, send.message_id))
        box = self._tables.messages.setdefault(send.recipient, {})
        box[send.message_id] = StoredMessage(
            seq, send.message_id, send.sender, send.recipient, send.body, now_ms, send.reply_to
        )
        self._tables.history.setdefault(send.recipient, []).append(send.message_id)
        return seq

    def _finish(
        self,
        agent: Agent,
        message_id: str,
        status: str,
        now_ms: int,
        reply: bytes | None = None,
        error: str | None = None,
    ) -> None:
        self._roster.finished(agent, message_id)
        self._update(agent, message_id, status=status, finished_ms=now_ms, reply=reply, error=error)
        self._parking.ring(("outcome", agent.address, message_id))

    def _update(self, agent: Agent, message_id: str, **changes: object) -> None:
        box = self._tables.messages[agent.address]
        box[message_id] = replace(box[message_id], **changes)

    def _remind(self, address: str, remind: Remind) -> None:
        if remind.due_ms is None:
            self._tables.reminders.pop((address, remind.key), None)
            return
        self._tables.reminders[address, remind.key] = (remind.due_ms, remind.body)
        self._alarm.set(remind.due_ms)

    # owners and agents

    def forget_owners(self) -> None:
        """Be as a durable store after a boot: another incarnation, and nobody holds anything."""
        self.incarnation = self._random_bytes(8).hex()
        self._roster.owners.clear()
        for agent in self._tables.agents.values():
            if agent.owner is not None:
                self._roster.drop(agent)
        self._parking.ring("poll")

    async def register(self, owner: str, name: str, lease_s: float) -> str:
        self._parking.check_open()
        risen = self._roster.risen
        self._roster.register(owner, name, self._lease_end(lease_s))
        self._tell_risen(risen)
        return self.incarnation

    async def renew(self, owner: str, lease_s: float) -> bool:
        self._parking.check_open()
        if not lease_s:  # a lapse that no alarm is set to
            self._parking.ring("poll")
        return self._roster.renew(owner, self._lease_end(lease_s))

    async def claim(
        self, owner: str, limit: int, agents: Sequence[str] | None = None
    ) -> list[Activation]:
        self._parking.check_open()
        self._fire_due()
        now_ms = self._clock.now_ms()
        limit = page_limit(limit)
        if agents is None:
            chosen = self._roster.claimable(owner, limit, now_ms)
        else:
            known = [self._tables.agents.get(one) or Agent(one) for one in in_order(agents)]
            chosen = [one for one in known if self._roster.takeable(one, owner, now_ms)][:limit]
        return fill(self._activate(agent, owner) for agent in chosen)

    def _activate(self, agent: Agent, owner: str) -> Activation:
        self._tables.agents[agent.address] = agent
        abandoned = agent.owner is not None
        self._roster.take(agent, owner)
        version, snapshot = self._tables.snapshots.get(agent.address, (0, None))
        return Activation(
            agent.address,
            agent.epoch,
            agent.version,
            version,
            snapshot,
            tuple(self._tables.events(agent.address, version)),
            cut(self._pending(agent, 0, page_limit(1 << 30))),
            abandoned,
        )

    async def release(self, owner: str, agents: Sequence[str]) -> None:
        self._parking.check_open()
        risen = self._roster.risen
        for address in agents:
            agent = self._tables.agents.get(address)
            if agent is not None and agent.owner == owner:
                self._roster.drop(agent)
        self._tell_risen(risen)

    async def poll(self, owner: str, after: int, limit: int, wait_s: float) -> Poll:
        async def look() -> tuple[Poll, bool]:
            return self._look(owner, after, page_limit(limit))

        return await self._parking.until(("poll", ("poll", owner)), wait_s, look)

    def _look(self, owner: str, after: int, limit: int) -> tuple[Poll, bool]:
        self._fire_due()
        now_ms = self._clock.now_ms()
        found = self._roster.arrivals(owner, after, limit)
        messages = cut([self._tables.messages[agent.address][id] for _, agent, id in found])
        cursor = self._roster.head_seq
        if len(found) == limit or len(messages) < len(found):
            cursor = messages[-1].seq if messages else after
        ready = self._roster.ready(owner, now_ms)
        enough = self._roster.is_news(owner, bool(messages), ready, now_ms)
        self._alarm.set(min((due for due, _ in self._tables.reminders.values()), default=None))
        self._alarm.set(self._roster.next_lapse_ms())
        return Poll(messages, cursor, page_limit(ready)), enough

    def _fire_due(self) -> None:
        now_ms = self._clock.now_ms()
        due = [(at, where) for where, (at, _) in self._tables.reminders.items() if at <= now_ms]
        for due_ms, (address, key) in sorted(due):
            _, body = self._tables.reminders.pop((address, key))
            message_id = reminder_id(key, due_ms)
            if (address, message_id) not in self.received:
                self._send(Send(message_id, address, address, body), now_ms)

    def _lease_end(self, lease_s: float) -> int:
        return self._clock.now_ms() + round(lease_s * 1000)

    def _tell_risen(self, before: int) -> None:
        if self._roster.risen > before:
            self._parking.ring("poll")

    # reading

    async def inbox(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        self._parking.check_open()
        known = self._tables.agents.get(agent)
        return list(cut(self._pending(known, after, page_limit(limit)))) if known else []

    def _pending(self, agent: Agent, after: int, limit: int) -> list[StoredMessage]:
        box = self._tables.messages.get(agent.address, {})
        return [box[id] for id, seq in agent.pending.items() if seq > after][:limit]

    async def history(self, agent: str, after: int, limit: int) -> list[StoredMessage]:
        self._parking.check_open()
        box, ids = self._tables.messages.get(agent, {}), self._tables.history.get(agent, [])
        start = bisect_right(ids, after, key=lambda id: box[id].seq)
        return list(cut([box[id] for id in ids[start : start + page_limit(limit)]]))

    async def outcome(self, agent: str, message_id: str, wait_s: float) -> StoredMessage | None:
        async def look() -> tuple[StoredMessage | None, bool]:
            message = self._tables.messages.get(agent, {}).get(message_id)
            return message, message is None or message.status != "pending"

        return await self._parking.until((("outcome", agent, message_id),), wait_s, look)

    async def journal(self, agent: str, after: int, limit: int) -> list[JournalEvent]:
        self._parking.check_open()
        events = self._tables.events(agent, after)[: page_limit(limit)]
        return list(cut_by(events, [len(one.body) for one in events]))

    async def steps(self, job: str) -> list[Step]:
        self._parking.check_open()
        return self._tables.steps.of_job(job)

    async def get(self, collection: str, key: str) -> Document | None:
        self._parking.check_open()
        return self._tables.documents.get(collection, key)

    async def get_many(self, collection: str, keys: Sequence[str]) -> list[Document]:
        self._parking.check_open()
        check_many(keys)
        found = (self._tables.documents.get(collection, key) for key in dict.fromkeys(keys))
        return [document for document in found if document is not None]

    async def list_documents(
        self,
        collection: str,
        organization: str | None = None,
        terms: Sequence[str] = (),
        after: str | None = None,
        limit: int = 100,
        descending: bool = True,
    ) -> list[Document]:
        self._parking.check_open()
        found = self._tables.documents.matching(collection, organization, terms)
        if after is not None:
            found = [one for one in found if (one.key < after if descending else one.key > after)]
        found.sort(key=lambda one: one.key, reverse=descending)
        found = found[: page_limit(limit)]
        return list(cut_by(found, [len(one.body) for one in found]))

    async def count(
        self, collection: str, organization: str | None = None, terms: Sequence[str] = ()
    ) -> int:
        self._parking.check_open()
        return len(self._tables.documents.matching(collection, organization, terms))

    async def tail(
        self,
        after: int,
        limit: int,
        wait_s: float,
        organization: str | None = None,
        incarnation: str | None = None,
    ) -> Feed:
        feed, limit = self._tables.feed, page_limit(limit)
        start, reset = feed.start(after, incarnation, self.incarnation)

        async def look() -> tuple[Feed, bool]:
            found = feed.look(start, limit, organization, reset)
            return found, bool(found.entries) or reset

        return await self._parking.until(("feed",), wait_s, look)

    # upkeep

    async def prune(self, before_ms: int, limit: int, ended: Sequence[str] = ()) -> Swept:
        self._parking.check_open()
        check_limit(limit, ended)
        return self._tables.prune(before_ms, limit, ended)

    async def purge(self, organization: str, limit: int) -> Swept:
        self._parking.check_open()
        check_purge(organization, limit)
        waiting = [(one.address, id) for one in self._tables.agents.values() for id in one.pending]
        swept = self._tables.purge(organization, limit, self._roster)
        for address, message_id in waiting:
            self._parking.ring(("outcome", address, message_id))
        return swept

    async def health(self) -> Health:
        self._parking.check_open()
        details = self._tables.sizes(self._roster)
        refused = dict(self._refused)
        owners = self._roster.alive(self._clock.now_ms())
        return Health("memory", "none", self.incarnation, self._accepted, refused, details, owners)

    async def close(self) -> None:
        self._alarm.cancel()
        self._parking.close()
