"""Rules about plans and permissions: I8, I12 reviews, I18 its order, I20 orphans, I22 money.

f           key            value                                       written by
due         schedule       due times that a brute-force scan finds     the test
occurrence  schedule       {"dueMs" | "fromMs", "toMs", "count"; "outcome"}  the ledger's reader
approval    artifact hash  {"by", "author", "role", "untilMs"}         org; the reviewer
revoked     artifact hash                                              org; the reviewer
effect      artifact hash  what was done                               org; the fake target
sandbox     its owner      process ids still there                     the scanner of /proc
budget      job            dollars it may spend                        the test
charge      job            dollars, at the call's beginning            the fake model
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from runtime.ids import SCHEDULER, address
from runtime.job import Priority
from runtime.schedule.queue import Place, place
from runtime.verify.history import Fact, Violation
from runtime.verify.invariants.jobs import starts
from runtime.verify.invariants.reading import (
    JobView,
    commits,
    heed_hold,
    job_changes,
    read_job,
)

OUTCOMES: Final = frozenset({
    "fired", "coalesced", "skipped_overlap", "skipped_paused", "skipped_unchanged",
    "skipped_budget", "missed", "superseded",
})  # fmt: skip
ORPHAN_GRACE_MS: Final = 2_000
APPROVERS: Final = frozenset({"operator", "admin"})


def occurrences_accounted(facts: Sequence[Fact]) -> list[Violation]:
    """I8: every due time of a schedule has exactly one outcome, and nothing else has one."""
    due: dict[str, set[int]] = defaultdict(set)
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    where: dict[str, int] = {}
    found = []
    for fact in facts:
        if fact.f == "due":
            due[fact.key] |= set(fact.value)
            where[fact.key] = fact.i
    for fact in facts:
        if fact.f != "occurrence":
            continue
        if fact.value["outcome"] not in OUTCOMES:
            found.append(Violation("I8", fact.i, f"{fact.key}: {fact.value['outcome']}"))
        times = _times(fact.value, due[fact.key])
        seen[fact.key].update(times)
        where[fact.key] = fact.i
        if "count" in fact.value and len(times) != fact.value["count"]:
            text = f"{fact.key} tells of {fact.value['count']}, {len(times)} were due"
            found.append(Violation("I8", fact.i, text))
        for at in set(times) - due[fact.key]:
            found.append(Violation("I8", fact.i, f"{fact.key} was not due at {at}"))
    for schedule, expected in due.items():
        for at in sorted(expected):
            if seen[schedule][at] != 1:
                text = f"{schedule} at {at} has {seen[schedule][at]} outcomes"
                found.append(Violation("I8", where[schedule], text))
    return found


def _times(value: dict[str, Any], due: set[int]) -> list[int]:
    if "dueMs" in value:
        return [value["dueMs"]]
    return [at for at in due if value["fromMs"] <= at <= value["toMs"]]


def effects_approved(facts: Sequence[Fact]) -> list[Violation]:
    """I12: every gated effect has its own earlier approval of just this artifact.

    Of the same organization and hash, by somebody else than the author who may
    approve, not expired, not revoked, not used before.
    """
    approvals: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    found = []
    for fact in facts:
        if fact.f == "approval":
            approvals[fact.org, fact.key].append(fact)
        elif fact.f == "revoked":
            approvals[fact.org, fact.key].clear()
        elif fact.f == "effect" and fact.type == "ok":
            standing = approvals[fact.org, fact.key]
            good = next((one for one in standing if _permits(one, fact)), None)
            if good is None:
                text = f"{fact.org}: an effect of {fact.key} without an approval"
                found.append(Violation("I12", fact.i, text))
            else:
                standing.remove(good)
    return found


def _permits(approval: Fact, effect: Fact) -> bool:
    value = approval.value
    allowed = value["role"] in APPROVERS and value["by"] != value["author"]
    return allowed and effect.t_ms <= value["untilMs"]


def queue_in_order(facts: Sequence[Fact]) -> list[Violation]:
    """I18: of an organization's queued jobs under the same limits the best place starts first.

    A job counts as queued from the commit in which the scheduler has taken it
    until it starts or leaves the queue; only first starts are compared, and not
    with a job whose own agent is held.  The starts of one round, which nothing
    else of the scheduler interrupts, may come in any order; a round that its
    scheduler did not live to end is not judged.
    """
    return _Queue().go(facts)


class _Queue:
    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.statuses: dict[str, str] = {}
        self.queued: dict[str, dict[str, Place]] = defaultdict(dict)
        """Organization -> its queued jobs."""
        self.agents: dict[str, str] = {}
        """Job -> address of its agent."""
        self.held: set[str] = set()
        """Addresses of agents."""
        self.round: dict[str, list[tuple[Fact, Place]]] = defaultdict(list)
        """Organization -> its jobs that this round has started."""
        self.found: list[Violation] = []

    def go(self, facts: Sequence[Fact]) -> list[Violation]:
        for fact, _, commit in commits(facts):
            if commit.agent == SCHEDULER and commit.acks:
                self._end_round(fact.epoch)
            for job, organization in starts(commit):
                mine = self.queued[organization].pop(job, None)
                if mine is not None:
                    self.round[organization].append((fact, mine))
            for put in commit.puts:
                heed_hold(self.held, put)
                if put.collection == "job" and put.body is not None:
                    self._changed(read_job(put.body))
            if commit.agent == SCHEDULER:
                for ack in commit.acks:
                    self._taken(ack.message_id)
        return self.found

    def _changed(self, record: JobView) -> None:
        self.queued[record.organization_id].pop(record.id, None)
        self.statuses[record.id] = record.status
        if record.id not in self.places:
            self.places[record.id] = _place(record)
            agent = record.agent_id or f"{record.agent_type}:{record.id}"
            self.agents[record.id] = address(record.organization_id, agent)

    def _taken(self, message_id: str) -> None:
        job = message_id.removeprefix("queued:")
        if job != message_id and self.statuses.get(job) == "pending":
            self.queued[self.places[job].organization][job] = self.places[job]

    def _end_round(self, epoch: int) -> None:
        for organization, started in self.round.items():
            waiting = [
                one
                for job, one in self.queued[organization].items()
                if self.agents[job] not in self.held
            ]
            for fact, mine in started:
                best = min((one for one in waiting if _lane(one) == _lane(mine)), default=None)
                if fact.epoch == epoch and best is not None and best < mine:
                    text = f"{mine.job_id} started before {best.job_id}, which comes first"
                    self.found.append(Violation("I18", fact.i, text))
        self.round.clear()


def _place(record: JobView) -> Place:
    queued_ms = round(datetime.fromisoformat(record.queued_at).timestamp() * 1000)
    return place(
        record.id, record.organization_id, queued_ms, Priority(record.priority),
        repository=record.repository, agent=record.agent_id, key=record.limit_key,
    )  # fmt: skip


def _lane(one: Place) -> tuple[str, str, str]:
    """What else may stop a job than the limits of all, and of its organization."""
    return one.repository, one.agent, one.key


def no_orphans(facts: Sequence[Fact]) -> list[Violation]:
    """I20: two seconds after its owner's death nothing of a sandbox is left."""
    killed: dict[str, int] = {}
    found = []
    for fact in facts:
        if fact.f == "kill":
            killed[fact.key] = fact.t_ms
        elif fact.f == "sandbox" and fact.value and fact.key in killed:
            age_ms = fact.t_ms - killed[fact.key]
            if age_ms > ORPHAN_GRACE_MS:
                text = f"{fact.value} of {fact.key} live {age_ms} ms after it"
                found.append(Violation("I20", fact.i, text))
    return found


def budgets_kept(facts: Sequence[Fact]) -> list[Violation]:
    """I22: no call is begun once the budget is spent."""
    limits: dict[str, float] = {}
    spent: dict[str, float] = defaultdict(float)
    found = []
    for fact in facts:
        if fact.f == "budget":
            limits[fact.key] = fact.value
        elif fact.f == "charge":
            if spent[fact.key] >= limits.get(fact.key, float("inf")):
                text = f"{fact.key} spends on at {spent[fact.key]} of {limits[fact.key]}"
                found.append(Violation("I22", fact.i, text))
            spent[fact.key] += fact.value
    return found


def costs_recorded(facts: Sequence[Fact]) -> list[Violation]:
    """I22: the record says what was spent.

    A job's recorded cost is at least that of its recorded steps, each once, and
    at most that of all calls that answered.
    """
    answered: dict[str, float] = defaultdict(float)
    each: dict[str, float] = {}
    recorded: dict[str, float] = defaultdict(float)
    latest: dict[str, tuple[int, float]] = {}
    for fact in facts:
        if fact.f in ("call", "lookup") and fact.type == "ok":
            answered[fact.key.partition(":")[0]] += fact.value.cost_usd
            each[fact.key] = fact.value.cost_usd
    for _, _, commit in commits(facts):
        for result in commit.results:
            recorded[result.job] += each.get(f"{result.job}:{result.key}", 0.0)
    for fact, job, _ in job_changes(facts):
        latest[job.id] = (fact.i, job.cost_usd)
    return [
        Violation("I22", i, f"{job} says {cost}, its steps cost {recorded[job]}..{answered[job]}")
        for job, (i, cost) in latest.items()
        if not recorded[job] - 1e-9 <= cost <= answered[job] + 1e-9
    ]
