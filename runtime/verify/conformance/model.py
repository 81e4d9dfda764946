"""The contract once more, naive and slow, as the oracle of the random test.

Everything is a list or a dict that is searched from end to end, and a commit
is tried on a deep copy: what is refused is thrown away.  It shares no code
with any store, so that a mistake there does not hide here.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from runtime.ids import ulid_time_of
from runtime.store import roster
from runtime.store.contract import (
    ABSENT,
    ANY,
    Commit,
    Committed,
    Document,
    Feed,
    FeedEntry,
    JournalEvent,
    Put,
    Refused,
    Step,
    StoredMessage,
)


class No(Exception):
    """The commit is refused."""


def organization(address: str) -> str:
    return address.split("/", maxsplit=1)[0]


class Model:
    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.messages: list[dict[str, Any]] = []
        self.seq = 0
        self.forgotten = ""
        """The time part of the youngest ULID that may have been forgotten."""
        self.agents: dict[str, dict[str, Any]] = {}
        self.owners: dict[str, tuple[str, int]] = {}
        """owner -> (name, end of its lease)"""
        self.reminders: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.steps: list[dict[str, Any]] = []
        self.documents: dict[tuple[str, str], Document] = {}
        self.deleted: dict[tuple[str, str], Document] = {}
        """What is left of them."""
        self.feed: list[FeedEntry] = []
        self.head = self.floor = 0
        self.epoch_floor = 0
        self.accepted = 0
        self.refused: dict[str, int] = {}

    def agent(self, address: str) -> dict[str, Any]:
        new: dict[str, Any] = {
            "epoch": 0,
            "owner": None,
            "version": 0,
            "journal": [],
            "snapshot": (0, None),
        }
        return self.agents.setdefault(address, new)

    # commit

    def commit(self, commit: Commit, now: int) -> Committed | Refused:
        trial = deepcopy(self)
        try:
            answer = trial.apply(commit, now)
        except No as no:
            reason, *detail = no.args
            self.refused[reason] = self.refused.get(reason, 0) + 1
            return Refused(reason, *detail)
        self.__dict__ = trial.__dict__
        self.accepted += 1
        return answer

    def apply(self, commit: Commit, now: int) -> Committed:
        self.check_organizations(commit)
        if commit.agent is not None:
            self.check_fence(commit)
        for put in commit.puts:
            self.put(commit.organization, put, now)
        full = {one.recipient for one in commit.sends if self.is_full(one.recipient)}
        seqs = [self.arrive(one, now) for one in commit.sends]
        if commit.agent is None and full:
            raise No("inbox_full", next(s.recipient for s in commit.sends if s.recipient in full))
        version = 0
        if commit.agent is not None:
            self.turn(commit, commit.agent, now, seqs)
            self.record(commit, commit.agent, now)
            version = self.agent(commit.agent)["version"]
        for event in commit.feed:
            self.head += 1
            where = (self.head, event.organization, event.event, event.rooms)
            self.feed.append(FeedEntry(*where, event.at_ms, event.body))
        return Committed(version, tuple(seqs), self.head)

    def check_organizations(self, commit: Commit) -> None:
        for one in commit.sends:
            own = commit.organization
            to = organization(one.recipient)
            if own != "system" and (organization(one.sender) != own or to not in (own, "system")):
                raise No("foreign_organization", one.recipient)

    def check_fence(self, commit: Commit) -> None:
        assert commit.agent is not None and commit.fence is not None
        agent = self.agents.get(commit.agent, {"epoch": 0, "version": 0})
        if commit.fence.incarnation != self.incarnation:
            raise No("stale_incarnation")
        if agent["epoch"] == 0 or agent["epoch"] != commit.fence.epoch:
            raise No("stale_epoch")
        if commit.expected_version not in (None, agent["version"]):
            raise No("version_conflict")

    def put(self, writer: str, put: Put, now: int) -> None:
        where = (put.collection, put.key)
        there = self.documents.get(where)
        taken = there is not None and there.organization != put.organization
        if taken or writer not in ("system", put.organization):
            raise No("foreign_organization", f"{put.collection}/{put.key}")
        revision = there.revision if there else ABSENT
        if put.expect not in (ANY, revision):
            raise No("revision_conflict", f"{put.collection}/{put.key}")
        if put.body is None and there is None:
            return
        before = there or self.deleted.pop(where, None)
        revision = before.revision + 1 if before else 1
        document = Document(
            put.key, put.organization, revision, put.body or b"", put.terms, now
        )  # fmt: skip
        if put.body is None:
            del self.documents[where]
            self.deleted[where] = document
        else:
            self.documents[where] = document

    def arrive(self, one: Any, now: int) -> int:
        if any(self.is_message(m, one.recipient, one.message_id) for m in self.messages):
            raise No("duplicate", one.message_id)
        if len(one.message_id) == 26 and one.message_id[:10] <= self.forgotten:
            raise No("expired", one.message_id)
        self.agent(one.recipient)
        self.seq += 1
        message = StoredMessage(
            self.seq, one.message_id, one.sender, one.recipient, one.body, now,
            one.reply_to,
        )  # fmt: skip
        self.messages.append({name: getattr(message, name) for name in message.__struct_fields__})
        return message.seq

    def is_full(self, address: str) -> bool:
        return len(self.inbox(address)) >= roster.INBOX_MAX

    def is_message(self, message: dict[str, Any], recipient: str, id: str) -> bool:
        return bool(message["recipient"] == recipient and message["message_id"] == id)

    def turn(self, commit: Commit, address: str, now: int, own: list[int]) -> None:
        done = {"finished_ms": now, "reply": None, "error": None}
        for number, ack in enumerate(commit.acks):
            if number == 0 and self.sends_itself(commit, address, ack):
                if len(self.inbox(address)) > len(self.own(address, own)):
                    raise No("overtaking", ack.message_id)
                message = self.own(address, own)[0]
            else:
                message = self.pending(address, ack.message_id, own)
            message |= done | {"status": "processed", "reply": ack.reply}
        tried = set()
        for retry in commit.retries:
            message = self.pending(address, retry.message_id, own)
            if retry.message_id in tried:
                raise No("not_pending", retry.message_id)
            tried.add(retry.message_id)
            message["attempts"] += 1
            message |= {"not_before_ms": retry.not_before_ms, "error": retry.error}
        for bury in commit.buries:
            message = self.pending(address, bury.message_id, own)
            if bury.message_id in tried:
                raise No("not_pending", bury.message_id)
            message |= done | {"status": "dead", "error": bury.error}

    def sends_itself(self, commit: Commit, address: str, ack: Any) -> bool:
        """Whether the message is handled at once."""
        first = commit.sends[0] if commit.sends else None
        return first is not None and self.is_message(
            {"recipient": first.recipient, "message_id": first.message_id},
            address,
            ack.message_id,
        )

    def own(self, agent: str, seqs: list[int]) -> list[dict[str, Any]]:
        return [m for m in self.messages if m["seq"] in seqs and m["recipient"] == agent]

    def pending(self, agent: str, id: str, own: list[int]) -> dict[str, Any]:
        for message in self.messages:
            if self.is_message(message, agent, id) and message["status"] == "pending":
                if message["seq"] in own:
                    break
                return message
        raise No("not_pending", id)

    def record(self, commit: Commit, address: str, now: int) -> None:
        agent = self.agent(address)
        cause = commit.acks[0].message_id if commit.acks else None
        for event in commit.events:
            agent["version"] += 1
            agent["journal"].append(
                JournalEvent(agent["version"], event.name, event.body, event.schema, now, cause)
            )
        if commit.snapshot is not None:
            agent["snapshot"] = (agent["version"], commit.snapshot)
        for remind in commit.reminders:
            self.reminders.pop((address, remind.key), None)
            if remind.due_ms is not None:
                self.reminders[address, remind.key] = (remind.due_ms, remind.body)
        for intent in commit.intents:
            self.begin(intent, address, now)
        for result in commit.results:
            self.end(result, address, now)

    def find_step(self, job: str, key: str) -> dict[str, Any] | None:
        return next((s for s in self.steps if (s["job"], s["key"]) == (job, key)), None)

    def begin(self, intent: Any, agent: str, now: int) -> None:
        step = self.find_step(intent.job, intent.key)
        if step is None:
            step = {"job": intent.job, "key": intent.key, "kind": intent.kind}
            step |= {"intent": intent.body, "attempts": 0, "result": None}
            self.steps.append(step)
        if step["result"] is not None:
            raise No("step_conflict", intent.key)
        step |= {"agent": agent, "epoch": self.agent(agent)["epoch"], "at_ms": now}
        step["attempts"] += 1

    def end(self, result: Any, agent: str, now: int) -> None:
        step = self.find_step(result.job, result.key)
        begun = (agent, self.agent(agent)["epoch"], None)
        if step is None or (step["agent"], step["epoch"], step["result"]) != begun:
            raise No("step_conflict", result.key)
        step |= {"result": result.body, "at_ms": now}

    # owners

    def live(self, owner: str | None, now: int) -> bool:
        return owner in self.owners and self.owners[owner][1] > now

    def register(self, owner: str, name: str, until: int) -> None:
        self.owners = {id: one for id, one in self.owners.items() if one[0] != name}
        self.owners[owner] = (name, until)

    def renew(self, owner: str, until: int) -> bool:
        if owner in self.owners:
            self.owners[owner] = (self.owners[owner][0], until)
        return owner in self.owners

    def first_waiting(self, address: str) -> int | None:
        return min((m["seq"] for m in self.inbox(address)), default=None)

    def ready(self, owner: str, now: int) -> list[str]:
        if not self.live(owner, now):
            return []
        waiting = [
            (self.first_waiting(address), address)
            for address, agent in self.agents.items()
            if organization(address) != "system"
            and self.first_waiting(address) is not None
            and not self.live(agent["owner"], now)
        ]
        return [address for _, address in sorted(waiting)]

    def claim(self, owner: str, limit: int, named: list[str] | None, now: int) -> list[Any]:
        self.fire(now)
        chosen = self.ready(owner, now)
        if named is not None:
            chosen = [a for a in dict.fromkeys(named) if self.takeable(a, owner, now)]
        return [self.activate(address, owner) for address in chosen[:limit]]

    def takeable(self, address: str, owner: str, now: int) -> bool:
        holder = self.agents.get(address, {"owner": None})["owner"]
        return self.live(owner, now) and holder != owner and not self.live(holder, now)

    def activate(self, address: str, owner: str) -> tuple[Any, ...]:
        agent = self.agent(address)
        abandoned = agent["owner"] is not None
        agent["owner"] = owner
        agent["epoch"] = (agent["epoch"] or self.epoch_floor) + 1
        at, snapshot = agent["snapshot"]
        tail = [event for event in agent["journal"] if event.version > at]
        inbox = self.inbox(address)
        return (address, agent["epoch"], agent["version"], at, snapshot, tail, inbox, abandoned)

    def release(self, owner: str, agents: list[str]) -> None:
        for address in agents:
            if address in self.agents and self.agents[address]["owner"] == owner:
                self.agents[address]["owner"] = None

    def fire(self, now: int) -> None:
        due = sorted((at, where) for where, (at, _) in self.reminders.items() if at <= now)
        for at, (address, key) in due:
            _, body = self.reminders.pop((address, key))
            id = f"reminder:{key}:{at}"
            message = StoredMessage(0, id, address, address, body, now)
            if not any(self.is_message(m, address, id) for m in self.messages):
                self.arrive(message, now)

    # upkeep

    def prune(self, before: int, ended: list[str]) -> int:
        """All that a round forgets; how many rows that is."""
        was = self.rows()
        self.steps = [s for s in self.steps if s["job"] not in ended]
        gone = [m for m in self.messages if self.may_go(m, before)]
        self.messages = [m for m in self.messages if m not in gone]
        for message in gone:
            self.forgotten = max(self.forgotten, ulid_time_of(message["finished_ms"]))
        while self.feed and self.feed[0].at_ms < before:
            self.floor = self.feed.pop(0).cursor
        for agent in self.agents.values():
            journal, covered = agent["journal"], agent["snapshot"][0]
            while journal and journal[0].version <= covered and journal[0].at_ms < before:
                journal.pop(0)
        self.deleted = {w: d for w, d in self.deleted.items() if d.updated_ms >= before}
        return was - self.rows()

    def may_go(self, message: dict[str, Any], before: int) -> bool:
        if message["status"] == "pending" or message["finished_ms"] >= before:
            return False
        letter = ("dead_letter", f"{message['recipient']}/{message['message_id']}")
        return message["status"] == "processed" or letter not in self.documents

    def rows(self) -> int:
        journals = sum(len(agent["journal"]) for agent in self.agents.values())
        rest = (self.steps, self.messages, self.feed, self.deleted)
        return journals + sum(len(one) for one in rest)

    def purge(self, of: str) -> None:
        mine = {a: agent for a, agent in self.agents.items() if organization(a) == of}
        self.epoch_floor = max([self.epoch_floor, *(agent["epoch"] for agent in mine.values())])
        for address in mine:
            del self.agents[address]
        self.messages = [
            m
            for m in self.messages
            if of not in (organization(m["recipient"]), organization(m["sender"]))
        ]
        self.reminders = {w: r for w, r in self.reminders.items() if organization(w[0]) != of}
        self.steps = [s for s in self.steps if organization(s["agent"]) != of]
        self.documents = {w: d for w, d in self.documents.items() if d.organization != of}
        self.deleted = {w: d for w, d in self.deleted.items() if d.organization != of}
        self.feed = [e for e in self.feed if e.organization != of]

    # reads

    def inbox(self, agent: str) -> list[dict[str, Any]]:
        return [m for m in self.history(agent) if m["status"] == "pending"]

    def history(self, agent: str) -> list[dict[str, Any]]:
        return [m for m in self.messages if m["recipient"] == agent]

    def poll(self, owner: str, after: int, now: int) -> tuple[list[dict[str, Any]], int]:
        self.fire(now)
        mine = [a for a, agent in self.agents.items() if agent["owner"] == owner]
        found = [m for m in self.messages if m["recipient"] in mine and m["status"] == "pending"]
        return [m for m in found if m["seq"] > after], len(self.ready(owner, now))

    def journal(self, agent: str) -> list[JournalEvent]:
        return self.agents[agent]["journal"] if agent in self.agents else []

    def steps_of(self, job: str) -> list[Step]:
        return [
            Step(*(s[name] for name in Step.__struct_fields__))
            for s in self.steps
            if s["job"] == job
        ]

    def listed(self, collection: str, of: str | None, terms: list[str]) -> list[Document]:
        found = [
            document
            for (where, _), document in self.documents.items()
            if where == collection
            and of in (None, document.organization)
            and all(term in document.terms for term in terms)
        ]
        return sorted(found, key=lambda document: document.key)

    def tail(self, after: int, limit: int, of: str | None) -> Feed:
        reset = after > self.head or 0 <= after < self.floor
        start = self.head if after < 0 else self.floor if reset else after
        entries = [e for e in self.feed if e.cursor > start and of in (None, e.organization)]
        cursor = self.head if len(entries) < limit else entries[limit - 1].cursor
        return Feed(tuple(entries[:limit]), cursor, reset)
