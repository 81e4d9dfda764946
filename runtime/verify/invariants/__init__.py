"""The invariants: each a pure function of a history that answers what breaks it.

    messages   I1 nothing lost, I2 once, I3 in order, IAnswer answers are durable
    turns      I7 whole turns
    reminders  I13 reminders
    agents     I4 fencing, I5 versions, I6 replay
    jobs       I9 limits, I10 pauses, I19 liveness, ICancel a cancel holds
    steps      I11 steps
    retries    I16 retries
    public     I14 feed, I15 isolation, I17 idempotency keys, I21 read your writes,
               IUnits what the workload itself keeps: units
    plans      I8 occurrences, I12 reviews, I18 queue order, I20 orphans, I22 money
    shares     I18 fairness

A history that has nothing of what a rule is about breaks it never: `unjudged`
names those.

Source: research/reliability.md 3.2, whose numbers are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from runtime.verify.history import Fact, Violation
from runtime.verify.invariants import (
    agents,
    jobs,
    messages,
    plans,
    public,
    reminders,
    retries,
    shares,
    steps,
    turns,
)

Invariant = Callable[[Sequence[Fact]], list[Violation]]

INVARIANTS: dict[str, Invariant] = {
    "I1": messages.nothing_lost,
    "I2": messages.each_once,
    "I3": messages.in_order,
    "I4": agents.fenced,
    "I5": agents.versions_dense,
    "I6": agents.replayed,
    "I7": turns.turns_whole,
    "I8": plans.occurrences_accounted,
    "I9": jobs.within_limits,
    "I10": jobs.paused_stay_paused,
    "I11": steps.steps_recorded_once,
    "I12": plans.effects_approved,
    "I13": reminders.reminders_fire_once,
    "I14": public.feed_dense,
    "I15": public.organizations_apart,
    "I16": retries.retries_bounded,
    "I17": public.idempotency_keys_kept,
    "I18 order": plans.queue_in_order,
    "I18 shares": shares.fair_shares,
    "I19": jobs.everything_ends,
    "I20": plans.no_orphans,
    "I21": public.own_writes_read,
    "I22 budgets": plans.budgets_kept,
    "I22 costs": plans.costs_recorded,
    "IAnswer": messages.answers_durable,
    "ICancel": jobs.cancelled_stays_cancelled,
    "IUnits": public.units_conserved,
}

NEEDS: Final = {
    "I8": "due", "I12": "effect", "I14": "tail", "I15": "look", "I17": "submit",
    "I18 shares": "window", "I20": "sandbox", "I21": "read", "I22 budgets": "charge",
    "IAnswer": "ask",
}  # fmt: skip
"""Rules -> a fact without which they have nothing to judge; the others judge every commit.

`window` is no fact: there is a window of `shares`.
"""


def unjudged(facts: Sequence[Fact]) -> list[str]:
    """The rules that a history says nothing about, in their order."""
    there = {fact.f for fact in facts}
    if next(shares.windows(facts), None) is not None:
        there.add("window")
    return [rule for rule in INVARIANTS if NEEDS.get(rule, "commit") not in there]


def violations(facts: Sequence[Fact]) -> list[Violation]:
    """All that a history breaks, the earliest first."""
    found = [one for check in INVARIANTS.values() for one in check(facts)]
    return sorted(found, key=lambda one: one.i)
