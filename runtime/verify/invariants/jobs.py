"""Rules about jobs: I9 limits, I10 pauses, I19 that everything ends, and that cancels hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from runtime.ids import SCHEDULER, split
from runtime.store.contract import Commit
from runtime.verify.history import Fact, Violation
from runtime.verify.invariants.reading import (
    commits,
    finished,
    heed_hold,
    is_run,
    job_changes,
    last_index,
    stored_documents,
)
from runtime.verify.reader import READER

FINAL: Final = frozenset({"completed", "failed", "cancelled"})
BY_SCHEDULER: Final = frozenset({
    ("pending", "running"), ("pending", "pending"), ("pending", "paused"),
    ("pending", "cancelled"), ("pending", "failed"),
    ("running", "pending"), ("running", "failed"), ("running", "cancelled"), ("running", "paused"),
    ("waiting", "waiting"), ("waiting", "pending"), ("waiting", "running"), ("waiting", "paused"),
    ("waiting", "cancelled"),
    ("paused", "paused"), ("paused", "pending"), ("paused", "cancelled"),
    ("failed", "pending"),
})  # fmt: skip
"""What the scheduler may make of a job's status."""
BY_HOST: Final = frozenset(
    ("running", after) for after in ("running", "waiting", "paused", "completed", "cancelled")
)
"""What the host may make of it that runs it."""


def starts(commit: Commit) -> Iterator[tuple[str, str]]:
    """(job, organization) of each job that a commit starts."""
    if commit.agent == SCHEDULER:
        for send in commit.sends:
            if is_run(send.message_id):
                yield send.message_id.split(":")[1], split(send.recipient)[0]


def within_limits(facts: Sequence[Fact]) -> list[Violation]:
    """I9: never more jobs at once than the limits say: in all, of one organization, of one agent.

    A job holds its slot from its start until its `job.run` is acknowledged or
    given up: what a zombie or a dead host was doing counts until then.
    """
    limits = next((fact.value for fact in facts if fact.f == "limits"), None)
    if limits is None:
        return []
    running: dict[tuple[str, str], str] = {}
    counts: Counter[str] = Counter()
    found = []
    for fact, _, commit in commits(facts):
        for message_id in finished(commit):
            organization = running.pop((commit.agent or "", message_id), None)
            if organization is not None:
                counts[organization] -= 1
                counts[commit.agent or ""] -= 1
        for send in commit.sends:
            if not (is_run(send.message_id) and commit.agent == SCHEDULER):
                continue
            organization = split(send.recipient)[0]
            running[send.recipient, send.message_id] = organization
            counts[organization] += 1
            if len(running) > limits["total"]:
                found.append(Violation("I9", fact.i, f"{len(running)} jobs run at once"))
            counts[send.recipient] += 1
            if counts[send.recipient] > limits.get("agent", 1):
                text = f"{counts[send.recipient]} jobs of {send.recipient} run at once"
                found.append(Violation("I9", fact.i, text))
            if counts[organization] > limits["organization"]:
                text = f"{counts[organization]} jobs of {organization} run at once"
                found.append(Violation("I9", fact.i, text))
    return found


def paused_stay_paused(facts: Sequence[Fact]) -> list[Violation]:
    """I10: nothing starts while the scheduler is paused, and a job only by the moves it has.

    So a paused job runs only after it was resumed, one that has ended only
    after a retry, and only the host that runs a job ends it.  Nor does a job of
    an agent that is held.
    """
    found = []
    held: set[str] = set()
    statuses: dict[str, str] = {}
    paused = False
    for fact, _, commit in commits(facts):
        for put in commit.puts:
            if (put.collection, put.key) == ("scheduler", "control") and put.body is not None:
                paused = json.loads(put.body)["paused"]
            heed_hold(held, put)
        if commit.agent == SCHEDULER:
            found += [
                Violation("I10", fact.i, f"a job of {send.recipient} started: held")
                for send in commit.sends
                if is_run(send.message_id) and send.recipient in held
            ]
        if paused:
            found += [
                Violation("I10", fact.i, f"{job} started: paused") for job, _ in starts(commit)
            ]
    for fact, job, by_scheduler in job_changes(facts):
        before, statuses[job.id] = statuses.get(job.id), job.status
        if before is None:
            continue
        if (before, job.status) not in (BY_SCHEDULER if by_scheduler else BY_HOST):
            who = "the scheduler" if by_scheduler else fact.agent
            text = f"{job.id}: {before} -> {job.status} by {who}"
            found.append(Violation("I10", fact.i, text))
    return found


def everything_ends(facts: Sequence[Fact]) -> list[Violation]:
    """I19: once the trouble is over everything drains, and no job is left running or waiting."""
    calm = next((fact for fact in facts if fact.f == "calm"), None)
    if calm is None:
        return []
    found = []
    if not any(fact.f == "drained" for fact in facts):
        found.append(Violation("I19", last_index(facts), "it did not drain after the trouble"))
    statuses: dict[str, tuple[int, str]] = {}
    for fact, job, _ in job_changes(facts):
        statuses[job.id] = (fact.i, job.status)
    if any(fact.proc == READER for fact in facts):
        for key in stored_documents(facts, "job"):
            i, status = statuses.get(key, (calm.i, "absent"))
            if status not in FINAL:
                found.append(Violation("I19", i, f"{key} is {status} at the end"))
    return found


def cancelled_stays_cancelled(facts: Sequence[Fact]) -> list[Violation]:
    """ICancel: a cancel that was accepted holds.

    A run that begins after it (its agent was claimed later) records no intent;
    a run whose host has acknowledged it at most one more.  Retrying or resuming
    the job ends the matter.
    """
    return _Cancels().go(facts)


class _Cancels:
    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        """Job -> where its cancel was accepted."""
        self.messages: dict[tuple[str, str], str] = {}
        """(agent, message id) of the word to its host -> job."""
        self.heard: Counter[str] = Counter()
        """Job -> intents since its host has acknowledged the cancel; from 1 on: it has."""
        self.claimed: dict[str, int] = {}
        self.found: list[Violation] = []

    def go(self, facts: Sequence[Fact]) -> list[Violation]:
        for fact in facts:
            if fact.f == "claim":
                self.claimed[fact.agent] = fact.i
            elif fact.f == "commit" and fact.type == "ok":
                self._commit(fact, fact.value.commit)
        return self.found

    def _commit(self, fact: Fact, commit: Commit) -> None:
        for put in commit.puts:
            if put.collection == "asked":
                self.asked.pop(put.key, None)
                self.heard.pop(put.key, None)
                if put.body == b"cancel":
                    self.asked[put.key] = fact.i
        for send in commit.sends:
            if send.message_id.startswith("cancel:"):
                job = json.loads(send.body)["content"]["jobId"]
                self.messages[send.recipient, send.message_id] = job
        for job in {intent.job for intent in commit.intents} & self.asked.keys():
            self._goes_on(fact, job)
        for message_id in finished(commit):
            told = self.messages.get((fact.agent, message_id))
            if told in self.asked:
                self.heard[told] = 1

    def _goes_on(self, fact: Fact, job: str) -> None:
        if self.claimed.get(fact.agent, 0) > self.asked[job]:
            self.found.append(Violation("ICancel", fact.i, f"{job} goes on, it was cancelled"))
        elif job in self.heard:
            self.heard[job] += 1
            if self.heard[job] > 2:
                text = f"{job} goes on though its host has heard of the cancel"
                self.found.append(Violation("ICancel", fact.i, text))
