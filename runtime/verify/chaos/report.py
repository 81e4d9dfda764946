"""The verdict on a chaos run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from runtime.verify.chaos.load import Promises
from runtime.verify.chaos.part import Part
from runtime.verify.chaos.plan import Plan
from runtime.verify.chaos.strikes import Strike
from runtime.verify.history import Fact, Violation, neighbours
from runtime.verify.invariants import INVARIANTS, unjudged, violations
from runtime.verify.report import Outcome
from runtime.verify.simulate import count

ELSEWHERE: Final = ("I12", "I20", "I22 budgets")
"""Rules about reviews, sandboxes and models' budgets, which only a part of the load has."""
SHOWN_MAX: Final = 10
FLOORS: Final = {
    "strikes": 3, "jobs": 30, "messages": 100, "turns": 150, "calls": 30, "clientOk": 100,
}  # fmt: skip
"""A minute of a run must have exercised at least this, or it shows nothing."""
SEEN: Final = ("commits", "reminders", "deadLetters", "staleCommitsRefused")
"""Counted beside these, without a floor: how often they happen depends on what is struck."""


def contradictions(facts: Sequence[Fact]) -> list[Violation]:
    """I7: nothing was written of a commit that was refused."""
    return [
        Violation("I7", fact.i, f"{fact.proc} was told {fact.key}")
        for fact in facts
        if fact.f == "contradiction"
    ]


def report(
    plan: Plan,
    strikes: Sequence[Strike],
    promises: Promises,
    facts: Sequence[Fact],
    part: Part | None = None,
) -> Outcome:
    """The figure, the sentence, and whether all is well."""
    found = sorted([*violations(facts), *contradictions(facts)], key=lambda one: one.i)
    counts = count(facts)
    done = {name: counts[name] for name in FLOORS} | {"strikes": len(strikes)}
    short = [
        f"{name} {done[name]}, at least {round(floor * plan.minutes)} wanted"
        for name, floor in FLOORS.items()
        if done[name] < floor * plan.minutes
    ]
    silent = unjudged(facts)
    elsewhere = () if part else ELSEWHERE
    short += [f"nothing was there to judge by {rule}" for rule in silent if rule not in elsewhere]
    short += part.short(plan.minutes) if part else []
    resumed = sorted(_resumed(strikes, promises))
    figure: dict[str, Any] = {
        "verification": "chaos", "store": plan.store, "seed": plan.seed, "minutes": plan.minutes,
        **done,
        "struck": dict(Counter(f"{one.kind} {one.how}" for one in strikes)),
        **{name: counts[name] for name in SEEN},
        "callsRepeated": _repeated(facts),
        "requests": promises.requests, "requestsFailed": promises.failures,
        "resumeMs": {"p50": _percentile(resumed, 0.5), "p95": _percentile(resumed, 0.95)},
        **(part.figure() if part else {"leftOut": plan.left_out}),
        "rules": len(INVARIANTS), "rulesJudged": len(INVARIANTS) - len(silent),
        "rulesNotJudged": silent, "facts": len(facts),
        "violations": len(found), "tooLittle": short,
    }  # fmt: skip
    details = [f"{one.rule}: {one.text}" for one in found[:SHOWN_MAX]]
    if found:
        details += neighbours(facts, found[0].i)
    return Outcome(figure, _sentence(figure, found, short), not (found or short), details)


def _repeated(facts: Sequence[Fact]) -> int:
    """Calls of a step beyond its first."""
    called = Counter(fact.key for fact in facts if fact.f == "call" and fact.type == "invoke")
    return called.total() - len(called)


def _resumed(strikes: Sequence[Strike], promises: Promises) -> list[int]:
    """Milliseconds from each strike to the first answer to a question asked after it."""
    found = []
    for strike in strikes:
        answers = (answered for asked, answered in promises.probes if asked >= strike.at_ms)
        if (answer := next(answers, None)) is not None:
            found.append(answer - strike.at_ms)
    return found


def _percentile(ordered: Sequence[int], share: float) -> int | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _sentence(figure: dict[str, Any], found: list[Violation], short: list[str]) -> str:
    told = (
        f"{figure['strikes']} strikes in {figure['minutes']:g} min on {figure['store']}, "
        f"{figure['turns']} turns and {figure['jobs']} job runs"
    )
    if found:
        return f"{told}: {len(found)} VIOLATIONS, the first: {found[0].rule}: {found[0].text}."
    if short:
        return f"{told}: nothing is wrong, but too little was done to say so: {'; '.join(short)}."
    p50, p95 = figure["resumeMs"]["p50"], figure["resumeMs"]["p95"]
    silent = ", ".join(figure["rulesNotJudged"])
    why = f": {figure['leftOut']}" if figure.get("leftOut") else ""
    unheard = f" (not judged: {silent}{why})" if silent else ""
    return (
        f"{told}: {figure['rulesJudged']} of {figure['rules']} rules judged, none broken{unheard}; "
        f"an agent answered again after {p50} ms (p50), {p95} ms (p95)."
    )
