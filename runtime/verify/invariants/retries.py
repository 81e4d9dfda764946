"""Retries: I16. Tries of messages and jobs are counted, bounded and apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from runtime.backoff import Backoff
from runtime.hosting.activation import DELIVERIES_MAX
from runtime.store.contract import Commit
from runtime.verify.history import Fact, Violation
from runtime.verify.invariants.reading import clock_errors, commits, job_changes, touched

CLOCK_ERROR_MS: Final = 1_000
"""How wrong a process's clock may be from the beginning, with some room."""


def retries_bounded(facts: Sequence[Fact]) -> list[Violation]:
    """I16: tries are counted, bounded and apart; what is given up has one dead letter.

    A message is tried at most DELIVERIES_MAX times, a job `max_attempts` times;
    waiting and pausing is no attempt.  No wait is longer than the backoff's
    ceiling, and nothing is tried again before its wait is over, as far as clocks
    can be trusted.
    """
    errors = clock_errors(facts)
    return _message_retries(facts, errors) + _job_retries(facts, errors) + _attempts(facts)


def _error_ms(errors: dict[str, int], *processes: str) -> int:
    return sum(CLOCK_ERROR_MS + errors.get(process, 0) for process in processes)


def _message_retries(facts: Sequence[Fact], errors: dict[str, int]) -> list[Violation]:
    backoff = Backoff()
    tries: Counter[tuple[str, str]] = Counter()
    counted: Counter[tuple[str, str]] = Counter()
    """As the store counts, for which a repeated commit is one more."""
    waits: dict[tuple[str, str], tuple[int, str]] = {}
    found = []
    for fact, _, commit in commits(facts):
        counted.update((commit.agent or "", retry.message_id) for retry in commit.retries)
        if _is_repeated(commit, waits):
            continue
        for message_id in touched(commit):
            key = (commit.agent or "", message_id)
            not_before_ms, proc = waits.pop(key, (0, fact.proc))
            if fact.t_ms < not_before_ms - _error_ms(errors, fact.proc, proc):
                text = f"{key[1]} of {key[0]} was tried {not_before_ms - fact.t_ms} ms early"
                found.append(Violation("I16", fact.i, text))
        for retry in commit.retries:
            key = (commit.agent or "", retry.message_id)
            tries[key] += 1
            waits[key] = (retry.not_before_ms, fact.proc)
            longest_ms = backoff.ceiling_s(counted[key]) * 1000 + _error_ms(errors, fact.proc)
            if retry.not_before_ms - fact.t_ms > longest_ms:
                text = f"{key[1]} waits {retry.not_before_ms - fact.t_ms} ms"
                found.append(Violation("I16", fact.i, text))
            if tries[key] >= DELIVERIES_MAX:
                text = f"{key[1]} of {key[0]} has failed {tries[key]} times and is tried again"
                found.append(Violation("I16", fact.i, text))
    return found


def _is_repeated(commit: Commit, waits: dict[tuple[str, str], tuple[int, str]]) -> bool:
    """Whether this is the commit of a failed try once more, because its answer was lost."""
    return any(
        waits.get((commit.agent or "", retry.message_id), (0, ""))[0] == retry.not_before_ms
        for retry in commit.retries
    )


def _job_retries(facts: Sequence[Fact], errors: dict[str, int]) -> list[Violation]:
    backoff = Backoff()
    waits: dict[str, tuple[int, str]] = {}
    found = []
    failed: set[str] = set()
    letters = {
        (fact.i, put.key)
        for fact, _, commit in commits(facts)
        for put in commit.puts
        if put.collection == "dead_letter"
    }
    for fact, job, by_scheduler in job_changes(facts):
        if job.attempts > job.max_attempts:
            found.append(Violation("I16", fact.i, f"{job.id} is at attempt {job.attempts}"))
        if not by_scheduler:
            continue
        not_before_ms, proc = waits.pop(job.id, (0, fact.proc))
        if job.status == "running":
            if fact.t_ms < not_before_ms - _error_ms(errors, fact.proc, proc):
                early = not_before_ms - fact.t_ms
                found.append(Violation("I16", fact.i, f"{job.id} was started {early} ms early"))
        elif job.status == "pending" and job.not_before_ms:
            waits[job.id] = (job.not_before_ms, fact.proc)
            longest_ms = backoff.ceiling_s(job.attempts) * 1000 + _error_ms(errors, fact.proc)
            if job.not_before_ms - fact.t_ms > longest_ms:
                text = f"{job.id} waits {job.not_before_ms - fact.t_ms} ms"
                found.append(Violation("I16", fact.i, text))
        if job.status == "failed" and (fact.i, f"job/{job.id}") not in letters:
            found.append(Violation("I16", fact.i, f"{job.id} failed without a dead letter"))
        if job.status == "failed" and job.id in failed:
            found.append(Violation("I16", fact.i, f"{job.id} failed twice"))
        failed.add(job.id) if job.status == "failed" else failed.discard(job.id)
    return found


def _attempts(facts: Sequence[Fact]) -> list[Violation]:
    """Each start's attempt is one more than the attempts that have failed since the last retry."""
    failures: Counter[str] = Counter()
    statuses: dict[str, str] = {}
    found = []
    for fact, job, by_scheduler in job_changes(facts):
        move = (statuses.get(job.id, ""), job.status)
        statuses[job.id] = job.status
        if not by_scheduler:
            continue
        if move in (("running", "pending"), ("running", "paused")):
            failures[job.id] += 1
        elif move == ("failed", "pending"):
            failures[job.id] = 0
        elif job.status == "running" and job.attempts != failures[job.id] + 1:
            text = f"{job.id} starts attempt {job.attempts} after {failures[job.id]} failures"
            found.append(Violation("I16", fact.i, text))
    return found
