"""Histories written by hand, for tests of the invariants: short words for facts, and their end.

A `Told` keeps just enough of what was committed to write the reader's facts at
the end as a right store would; a test then tells something wrong, or changes a
fact afterwards.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from runtime.ids import SCHEDULER, split
from runtime.job import AgentJob
from runtime.journal import encode
from runtime.store.contract import (
    Ack,
    Bury,
    Commit,
    Document,
    Event,
    FeedEntry,
    FeedEvent,
    Fence,
    JournalEvent,
    Put,
    Retry,
    Send,
    Snapshot,
    Step,
    StoredMessage,
)
from runtime.verify.history import Fact, History, Lease, Tailed, Written
from runtime.verify.reader import READER, Stored

A, B = "acme/counter:a", "acme/counter:b"
OWNER = "host-1/01"
INCARNATION = "first"
START_MS = 1_700_000_000_000


@dataclass
class _Agent:
    epoch: int = 0
    messages: dict[str, StoredMessage] = field(default_factory=dict)
    journal: list[JournalEvent] = field(default_factory=list)
    snapshot: tuple[int, Snapshot | None] = (0, None)


class Told(History):
    """A history that is being written."""

    def __init__(self) -> None:
        super().__init__(lambda: self.now_ms)
        self.now_ms = START_MS
        self.agents: dict[str, _Agent] = {}
        self.documents: dict[tuple[str, str], Document] = {}
        self.steps: dict[str, dict[str, Step]] = {}
        self.feed: list[FeedEntry] = []
        self._seq = 0

    def later(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)

    def _agent(self, agent: str) -> _Agent:
        return self.agents.setdefault(agent, _Agent())

    # owners and claims

    def register(self, owner: str = OWNER, proc: str = "host-1", lease_s: float = 10.0) -> Fact:
        lease = Lease(owner.partition("/")[0], self.now_ms, self.now_ms + round(lease_s * 1000))
        return self.add(proc, "ok", "register", key=owner, value=lease)

    def claim(self, agent: str = A, owner: str = OWNER, proc: str = "host-1") -> Fact:
        known = self._agent(agent)
        known.epoch += 1
        return self.add(
            proc, "ok", "claim", org=split(agent)[0], agent=agent, key=owner, epoch=known.epoch,
            ver=len(known.journal), value=self.now_ms,
        )  # fmt: skip

    # commits

    def give(self, *ids: str, to: str = A, sender: str = "") -> Fact:
        """A client's messages."""
        organization = split(to)[0]
        sender = sender or f"{organization}/client:x"
        sends = tuple(Send(id, sender, to, message("say", id)) for id in ids)
        return self._write("client", Commit(organization, sends=sends))

    def put(self, key: str, body: bytes | None, collection: str = "note", **more: Any) -> Fact:
        organization = more.pop("organization", "acme")
        puts = (Put(collection, key, organization, body, **more),)
        return self._write("client", Commit(organization, puts=puts))

    def turn(self, agent: str = A, proc: str = "host-1", **parts: Any) -> Fact:
        """A commit of an agent that says what it builds on; `patch` makes an event."""
        if "patch" in parts:
            parts["events"] = (Event("changed", encode(parts.pop("patch"))),)
        parts.setdefault("expected_version", len(self._agent(agent).journal))
        return self.write(agent, proc, **parts)

    def write(self, agent: str = A, proc: str = "host-1", **parts: Any) -> Fact:
        """A commit of an agent; acks, buries and retries may be given by their ids."""
        parts["acks"] = tuple(
            Ack(one) if isinstance(one, str) else one for one in parts.get("acks", ())
        )
        parts["buries"] = tuple(Bury(one, "no") for one in parts.get("buries", ()))
        parts["retries"] = tuple(
            Retry(one, self.now_ms, "no") if isinstance(one, str) else one
            for one in parts.get("retries", ())
        )
        epoch = parts.pop("epoch", self._agent(agent).epoch)
        fence = Fence(parts.pop("incarnation", INCARNATION), epoch)
        return self._write(proc, Commit(split(agent)[0], agent, fence, **parts))

    def _write(self, proc: str, commit: Commit) -> Fact:
        seqs = tuple(self._send(send) for send in commit.sends)
        version = self._apply(commit) if commit.agent else 0
        for put in commit.puts:
            self._put(put)
        for event in commit.feed:
            self.feed.append(
                FeedEntry(len(self.feed) + 1, event.organization, event.event, event.rooms,
                          event.at_ms, event.body)
            )  # fmt: skip
        epoch = commit.fence.epoch if commit.fence else 0
        return self.add(
            proc, "ok", "commit", org=commit.organization, agent=commit.agent or "", epoch=epoch,
            ver=version, value=Written(commit, seqs, len(self.feed)),
        )  # fmt: skip

    def _send(self, send: Send) -> int:
        self._seq += 1
        self._agent(send.recipient).messages[send.message_id] = StoredMessage(
            self._seq, send.message_id, send.sender, send.recipient, send.body, self.now_ms
        )
        return self._seq

    def fire(self, key: str, due_ms: int, agent: str = A) -> None:
        """A reminder enters its agent's inbox."""
        self._send(Send(f"reminder:{key}:{due_ms}", agent, agent, message("reminder", key)))

    def _apply(self, commit: Commit) -> int:
        agent = self._agent(commit.agent or "")
        for event in commit.events:
            version = len(agent.journal) + 1
            agent.journal.append(
                JournalEvent(version, event.name, event.body, event.schema, self.now_ms, None)
            )
        if commit.snapshot is not None:
            agent.snapshot = (len(agent.journal), commit.snapshot)
        for ack in commit.acks:
            self._finish(agent, ack.message_id, status="processed", reply=ack.reply)
        for bury in commit.buries:
            self._finish(agent, bury.message_id, status="dead", error=bury.error)
        for intent in commit.intents:
            step = Step(intent.key, intent.kind, intent.body, agent.epoch, 1, None, self.now_ms)
            self.steps.setdefault(intent.job, {}).setdefault(intent.key, step)
        for result in commit.results:
            step = self.steps[result.job][result.key]
            self.steps[result.job][result.key] = replace(step, result=result.body)
        return len(agent.journal)

    def _finish(self, agent: _Agent, message_id: str, **changed: Any) -> None:
        if message_id in agent.messages:
            agent.messages[message_id] = replace(agent.messages[message_id], **changed)

    def _put(self, put: Put) -> None:
        where = (put.collection, put.key)
        before = self.documents.pop(where, None)
        if put.body is not None:
            revision = before.revision + 1 if before else 1
            self.documents[where] = Document(
                put.key, put.organization, revision, put.body, put.terms, self.now_ms
            )

    # jobs

    def job(self, id: str = "job_1", organization: str = "acme", **fields: Any) -> Put:
        """The put of a job's record."""
        fields.setdefault("now_ms", self.now_ms)
        record = AgentJob.new(id=id, organization_id=organization, agent_type="worker", **fields)
        return Put("job", id, organization, record.to_json())

    def scheduler(self, proc: str = "scheduler", **parts: Any) -> Fact:
        return self.write(SCHEDULER, proc, **parts)

    def start(self, id: str = "job_1", organization: str = "acme", **fields: Any) -> Fact:
        """The scheduler starts a job: its record and its `job.run`."""
        fields = {"status": "running", "attempts": 1, **fields}
        run = Send(
            f"run:{id}:{self.now_ms}",
            SCHEDULER,
            f"{organization}/worker:{id}",
            message("job.run", id),
        )
        return self.scheduler(sends=(run,), puts=(self.job(id, organization, **fields),))

    # the feed

    def publish(self, *bodies: str, organization: str = "acme") -> Fact:
        feed = tuple(FeedEvent(organization, "e", ("r",), 1, body.encode()) for body in bodies)
        return self._write("client", Commit(organization, feed=feed))

    def tail(self, after: int, *cursors: int, cursor: int | None = None, **more: Any) -> Fact:
        """What the subscriber `s` of acme is answered."""
        tailed = Tailed(
            after, more.pop("incarnation", INCARNATION), cursors,
            cursor if cursor is not None else max(cursors, default=after),
            more.pop("reset", False), more.pop("asked_at", len(self.facts)),
        )  # fmt: skip
        return self.add("s", "ok", "tail", org="acme", key="s", value=tailed)

    # the end

    def end(self) -> list[Fact]:
        """What the reader finds; the whole history."""
        for address, agent in self.agents.items():
            version, snapshot = agent.snapshot
            messages = sorted(agent.messages.values(), key=lambda one: one.seq)
            stored = Stored(
                messages, agent.journal, version, snapshot, tuple(agent.journal[version:])
            )
            self.add(
                READER, "ok", "final.agent", agent=address, epoch=agent.epoch + 1,
                ver=len(agent.journal), value=stored,
            )  # fmt: skip
        for job, steps in self.steps.items():
            self.add(READER, "ok", "final.steps", key=job, value=list(steps.values()))
        for collection in {name for name, _ in self.documents}:
            found = [one for (name, _), one in self.documents.items() if name == collection]
            self.add(READER, "ok", "final.put", key=collection, value=found)
        self.add(READER, "ok", "final.feed", value=list(self.feed))
        return self.facts


def message(message_type: str, content: str) -> bytes:
    body = {"messageType": message_type, "content": {"jobId": content}}
    return json.dumps(body).encode()
