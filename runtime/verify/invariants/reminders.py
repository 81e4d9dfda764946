"""Reminders: I13. They fire once, not early, and not when they were cancelled."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.store.contract import StoredMessage
from runtime.verify.history import Fact, Violation
from runtime.verify.invariants.reading import commits, last_index, stored_agents, touched

Key = tuple[str, str]
"""(agent, message id)"""


def reminders_fire_once(facts: Sequence[Fact]) -> list[Violation]:
    """I13: a reminder fires once, not before it is due, and not after it was cancelled or replaced.

    By the store's clock.  One that was not cancelled and is long due has fired.
    A reminder's place among the commits is its seq.
    """
    plans = _planned(facts)
    if not any(fact.f == "final.agent" for fact in facts):
        return []
    found = []
    fired: set[Key] = set()
    end_ms = _store_time_at_end(facts)
    for fact, stored in stored_agents(facts):
        for message in stored.messages:
            if not message.message_id.startswith("reminder:") or message.sender != fact.agent:
                continue
            key = (fact.agent, message.message_id)
            fired.add(key)
            found += _fired(facts, key, message, plans)
    found += _handled_early(facts, plans)
    for (agent, message_id), plan in plans.items():
        due = plan.due_ms < end_ms and plan.ended_after is None
        if due and (agent, message_id) not in fired:
            found.append(Violation("I13", plan.i, f"{message_id} of {agent} never fired"))
    return found


class _Planned:
    def __init__(self, i: int, due_ms: int) -> None:
        self.i = i
        self.due_ms = due_ms
        self.ended_after: int | None = None
        """Seq that the first message after its cancellation or replacement has; None: it stands."""


def _planned(facts: Sequence[Fact]) -> dict[Key, _Planned]:
    """Every reminder that was set, by the id of its message."""
    plans: dict[Key, _Planned] = {}
    standing: dict[tuple[str, str], _Planned] = {}
    ended: list[_Planned] = []
    for fact, written, commit in commits(facts):
        if written.seqs:
            for plan in ended:
                plan.ended_after = written.seqs[0]
            ended.clear()
        for remind in commit.reminders:
            agent = commit.agent or ""
            before = standing.pop((agent, remind.key), None)
            if before is not None:
                before.ended_after = 1 << 62
                ended.append(before)
            if remind.due_ms is not None:
                plan = _Planned(fact.i, remind.due_ms)
                standing[agent, remind.key] = plan
                plans[agent, f"reminder:{remind.key}:{remind.due_ms}"] = plan
    return plans


def _fired(
    facts: Sequence[Fact], key: Key, message: StoredMessage, plans: dict[Key, _Planned]
) -> list[Violation]:
    plan = plans.get(key)
    if plan is None:
        return [Violation("I13", last_index(facts), f"{key[1]} of {key[0]} was never set")]
    if message.accepted_ms < plan.due_ms:
        early = plan.due_ms - message.accepted_ms
        return [Violation("I13", plan.i, f"{key[1]} of {key[0]} fired {early} ms early")]
    if plan.ended_after is not None and message.seq > plan.ended_after:
        return [Violation("I13", plan.i, f"{key[1]} of {key[0]} fired after its cancellation")]
    return []


def _handled_early(facts: Sequence[Fact], plans: dict[Key, _Planned]) -> list[Violation]:
    """Reminders that somebody dealt with when the store's clock can't have reached them yet."""
    found = []
    offsets = [(0, 0)]
    for fact in facts:
        if fact.f == "clock_step" and fact.key == "store":
            offsets.append((fact.i, offsets[-1][1] + round(fact.value * 1000)))
        if fact.f != "commit" or fact.type != "ok":
            continue
        commit = fact.value.commit
        for message_id in touched(commit):
            plan = plans.get((fact.agent, message_id))
            if plan is None:
                continue
            latest = max(i for i, _ in offsets if i <= plan.i)
            ahead_ms = max(offset for i, offset in offsets if i >= latest)
            early_ms = plan.due_ms - (fact.t_ms + ahead_ms)
            if early_ms > 0:
                text = f"{message_id} of {fact.agent} was handled {early_ms} ms early"
                found.append(Violation("I13", fact.i, text))
    return found


def _store_time_at_end(facts: Sequence[Fact]) -> int:
    """The store's clock as last seen, less than it can have been stepped back."""
    seen = [fact.value.now_ms for fact in facts if fact.f in ("register", "renew")]
    return (seen[-1] if seen else 0) - 1_000
