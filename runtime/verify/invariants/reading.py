"""What the invariants share: ways to go through a history."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import msgspec

from runtime.ids import SCHEDULER
from runtime.jobs.holds import HOLDS
from runtime.store.contract import Commit, Document, Put, StoredMessage
from runtime.verify.history import Fact, Written
from runtime.verify.reader import Stored


def commits(facts: Sequence[Fact]) -> Iterator[tuple[Fact, Written, Commit]]:
    """The accepted commits, in their order."""
    for fact in facts:
        if fact.f == "commit" and fact.type == "ok":
            yield fact, fact.value, fact.value.commit


def stored_agents(facts: Sequence[Fact]) -> Iterator[tuple[Fact, Stored]]:
    for fact in facts:
        if fact.f == "final.agent":
            yield fact, fact.value


def stored_messages(facts: Sequence[Fact]) -> dict[tuple[str, str], StoredMessage]:
    """Every message at the end, by (recipient, id)."""
    return {
        (fact.agent, message.message_id): message
        for fact, stored in stored_agents(facts)
        for message in stored.messages
    }


def stored_documents(facts: Sequence[Fact], collection: str) -> dict[str, Document]:
    for fact in facts:
        if fact.f == "final.put" and fact.key == collection:
            return {document.key: document for document in fact.value}
    return {}


def finished(commit: Commit) -> list[str]:
    """Ids of the messages that leave their inbox with a commit."""
    return [ack.message_id for ack in commit.acks] + [bury.message_id for bury in commit.buries]


def touched(commit: Commit) -> list[str]:
    """Ids of the messages that were tried, whatever came of it."""
    return finished(commit) + [retry.message_id for retry in commit.retries]


def last_index(facts: Sequence[Fact]) -> int:
    return facts[-1].i if facts else 0


def heed_hold(held: set[str], put: Put) -> None:
    """Keep the addresses of the agents that are held, by what is written of one."""
    if put.collection == HOLDS:
        holds = put.body is not None and json.loads(put.body).get("held", False)
        (held.add if holds else held.discard)(put.key)


class JobView(msgspec.Struct, rename="camel"):
    """What the rules need of a job's record."""

    id: str
    organization_id: str
    status: str
    agent_type: str = ""
    attempts: int = 0
    max_attempts: int = 4
    not_before_ms: int = 0
    priority: str = "normal"
    queued_at: str = ""
    repository: str | None = None
    agent_id: str | None = None
    limit_key: str | None = None
    cost_usd: float = 0.0
    result: dict[str, object] | None = None


_view = msgspec.json.Decoder(JobView).decode


def read_job(body: bytes) -> JobView:
    return _view(body)


def job_changes(facts: Sequence[Fact]) -> Iterator[tuple[Fact, JobView, bool]]:
    """Every accepted change of a job's record, and whether the scheduler made it."""
    for fact, _, commit in commits(facts):
        for put in commit.puts:
            if put.collection == "job" and put.body is not None:
                yield fact, _view(put.body), commit.agent == SCHEDULER


def is_run(message_id: str) -> bool:
    """Whether a message is `job.run`, by which the scheduler starts a job."""
    return message_id.startswith("run:")


def clock_errors(facts: Sequence[Fact]) -> dict[str, int]:
    """Process -> how far its clock was ever moved, at most, milliseconds; `store`: the store's."""
    moved: dict[str, int] = {}
    for fact in facts:
        if fact.f == "clock_step":
            moved[fact.key] = moved.get(fact.key, 0) + abs(round(fact.value * 1000))
    return moved
