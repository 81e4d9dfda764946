"""What is left after the storm, judged: pure functions from what is stored to violations.

`Aftermath` is what an independent reader found when every process was down,
beside what the API had promised and what the outside had been asked.  The
numbers are those of the invariants of `runtime.verify.invariants`; here nobody
watched the commits, so they are judged by what the commits left.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from runtime.job import AgentJob
from runtime.journal import State, fold
from runtime.store.contract import FeedEntry, JournalEvent, Snapshot, Step, StoredMessage
from runtime.verify.chaos.outside import Called
from runtime.verify.history import Violation


@dataclass(frozen=True)
class Remains:
    """One agent as it is stored."""

    messages: list[StoredMessage]
    journal: list[JournalEvent]
    snapshot_version: int
    snapshot: Snapshot | None

    @property
    def state(self) -> State:
        """The fold of the whole journal."""
        return fold(None, ((one.body, one.schema) for one in self.journal), 1, {})


@dataclass(frozen=True)
class Aftermath:
    agents: Mapping[str, Remains]
    """By address."""
    jobs: Mapping[str, AgentJob]
    steps: Mapping[str, list[Step]]
    """By job."""
    feed: list[FeedEntry]
    promised: Mapping[str, str]
    """Accepted message -> its recipient's address."""
    hired: list[str]
    """Jobs whose hiring was accepted."""
    calls: Mapping[str, list[Called]] = field(default_factory=dict)
    """What the outside was asked, by idempotency key."""
    opening: int = 0
    """Units an account begins with."""


Check = Callable[[Aftermath], Iterable[str]]


def nothing_lost(after: Aftermath) -> Iterable[str]:
    """I1: every accepted message has been handled or given up, and none waits."""
    known = {
        (where, one.message_id) for where, agent in after.agents.items() for one in agent.messages
    }
    for message_id, where in after.promised.items():
        if (where, message_id) not in known:
            yield f"{message_id} to {where} was accepted and is gone"
    for where, agent in after.agents.items():
        for message in agent.messages:
            if message.status == "pending":
                yield f"{message.message_id} to {where} still waits"


def each_once(after: Aftermath) -> Iterable[str]:
    """I2: a message changes its agent in one turn; a turn of these agents is one event."""
    for where, agent in after.agents.items():
        for cause, count in Counter(one.cause for one in agent.journal).items():
            if cause is not None and count > 1:
                yield f"{where} was changed {count} times by {cause}"


def in_order(after: Aftermath) -> Iterable[str]:
    """I3: messages of one sender were handled in the order of their seqs."""
    for where, agent in after.agents.items():
        by_id = {one.message_id: one for one in agent.messages}
        last: dict[str, int] = {}
        for event in agent.journal:
            message = by_id.get(event.cause or "")
            if message is None or message.attempts:
                continue
            if message.seq < last.get(message.sender, 0):
                yield f"{where} handled {message.message_id} after a later one of its sender"
            last[message.sender] = max(message.seq, last.get(message.sender, 0))


def versions_dense(after: Aftermath) -> Iterable[str]:
    """I5: the journal is numbered from 1 without a hole."""
    for where, agent in after.agents.items():
        if [one.version for one in agent.journal] != list(range(1, len(agent.journal) + 1)):
            yield f"the journal of {where} has a hole"


def replayed(after: Aftermath) -> Iterable[str]:
    """I6: snapshot and tail are the whole journal."""
    for where, agent in after.agents.items():
        if agent.snapshot is None:
            continue
        tail = agent.journal[agent.snapshot_version :]
        base = (json.loads(agent.snapshot.body), agent.snapshot.schema)
        if fold(base, ((one.body, one.schema) for one in tail), 1, {}) != agent.state:
            yield f"the snapshot of {where} is another state than its journal"


def units_conserved(after: Aftermath) -> Iterable[str]:
    """IUnits: no unit has appeared or vanished; `initialize` ran once in each life."""
    accounts = {where: agent.state for where, agent in after.agents.items() if "/account:" in where}
    for where, state in accounts.items():
        if (times := state.get("opened", 0)) != 1:
            yield f"{where} was initialized {times} times"
    total, opened = sum(state.get("units", 0) for state in accounts.values()), len(accounts)
    if total != opened * after.opening:
        yield f"{total} units in {opened} accounts, not {opened * after.opening}"


def steps_recorded_once(after: Aftermath) -> Iterable[str]:
    """I11: a recorded result is one that was answered, and was not asked for again."""
    for job, steps in after.steps.items():
        for step in steps:
            made = after.calls.get(f"{job}:{step.key}", [])
            if step.result is None:
                continue
            if step.result.decode().strip('"') not in {one.result for one in made}:
                yield f"{job} {step.key} has a result that nobody gave"
            if any(one.began_ms > step.at_ms for one in made):
                yield f"{job} {step.key} was called after its result was recorded"


def everything_ends(after: Aftermath) -> Iterable[str]:
    """I19: every job that was hired is there, has ended, and its boss knows how, once."""
    heard: Counter[tuple[str, str]] = Counter()
    for where, agent in after.agents.items():
        if "/boss:" in where:
            for job, words in agent.state.get("heard", {}).items():
                heard.update((job, word) for word in words)
    for job in after.hired:
        if job not in after.jobs:
            yield f"{job} was hired and is not there"
        elif not after.jobs[job].status.final:
            yield f"{job} is {after.jobs[job].status.value}"
        elif heard[job, f"job.{after.jobs[job].status.value}"] != 1:
            yield f"the end of {job} was told {heard[job, 'job.completed']} times"


def feed_whole(after: Aftermath) -> Iterable[str]:
    """I14: cursors rise one by one, and each completed job is told once."""
    cursors = [one.cursor for one in after.feed]
    if cursors != list(range(1, len(cursors) + 1)):
        yield "the feed has a hole"
    completed = Counter(
        room for one in after.feed if one.event == "job:completed" for room in one.rooms
    )
    for job, record in after.jobs.items():
        told = completed[f"job:{job}"]
        if told != (record.status.value == "completed"):
            yield f"the completion of {job} was told {told} times"


CHECKS: dict[str, Check] = {
    "I1": nothing_lost,
    "I2": each_once,
    "I3": in_order,
    "I5": versions_dense,
    "I6": replayed,
    "I11": steps_recorded_once,
    "I14": feed_whole,
    "I19": everything_ends,
    "IUnits": units_conserved,
}


def violations(after: Aftermath) -> list[Violation]:
    """All that is wrong."""
    return [Violation(rule, 0, text) for rule, check in CHECKS.items() for text in check(after)]
